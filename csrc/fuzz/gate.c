/* gate.c: the policy compiler, its index and the evaluator against a plain statement of what a gate decides. */
#include "gate_plain.h"
#include "gate_world.h"

#include "crypto.h"
#include "gate_index.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    REQUIRE(kest_crypto_init() == KEST_OK);
    return 0;
}

/* ---- the compiled side ---- */

static uint32_t subtree(int at)
{
    uint32_t size = 1;

    for (int i = 0; i < w.nodes[at].nchildren; i++)
        size += subtree(w.nodes[at].children[i]);
    return size;
}

static void emit(kest_gate_set *set, int at)
{
    const node *n = &w.nodes[at];
    kest_gate_node out = {.op = (uint8_t)n->op, .mode = (uint8_t)(n->op == KEST_OP_IN ? n->bools : n->mode), .size = subtree(at),
                          .ref = n->op == KEST_OP_KIND ? (uint32_t)n->kind : 0, .text = word(n->word), .number = n->number,
                          .integer = n->integer, .until = n->until};
    kest_str texts[ITEMS];
    double values[ITEMS];

    for (int i = 0; i < n->nwords; i++)
        texts[i] = word(n->items_words[i]);
    for (int i = 0; i < n->nnumbers; i++)
        values[i] = numbers[n->items_numbers[i]];
    out.texts = texts;
    out.ntexts = (uint32_t)n->nwords;
    out.numbers = values;
    out.nnumbers = (uint32_t)n->nnumbers;
    REQUIRE(kest_gate_set_node(set, &out, fuzz_str(field_names[n->field])) == KEST_OK);
    for (int i = 0; i < n->nchildren; i++)
        emit(set, n->children[i]);
}

/* The compiled set numbers limits as they come; so does this. */
static int order[MAX_LIMITS], norder;

static void number_limits(int at)
{
    if (w.nodes[at].op == KEST_OP_RATE)
        order[norder++] = w.nodes[at].limit;
    for (int i = 0; i < w.nodes[at].nchildren; i++)
        number_limits(w.nodes[at].children[i]);
}

static kest_gate_set *compile(void)
{
    kest_gate_set *set = NULL;

    norder = 0;
    REQUIRE(kest_gate_set_new(&set) == KEST_OK && kest_gate_set_zone(set, w.starts, w.offsets, 4) == KEST_OK);
    for (int i = 0; i < w.npolicies; i++) {
        char name[16];

        (void)snprintf(name, sizeof name, "p%d", i);
        REQUIRE(kest_gate_set_policy(set, fuzz_str(name), w.policies[i].permit) == KEST_OK);
        for (int k = 0; k < w.policies[i].nconditions; k++) {
            emit(set, w.policies[i].conditions[k]);
            number_limits(w.policies[i].conditions[k]);
        }
    }
    REQUIRE(kest_gate_set_seal(set) == KEST_OK && norder == w.nlimits);
    return set;
}

static kest_tri answer(void *self, const kest_gate_case *c, uint32_t limit)
{
    (void)self;
    (void)c;
    return w.answers[order[limit]];
}

/* ---- the two together ---- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tape t = {data, data + size};
    kest_gate_scratch scratch = {0};
    kest_gate_outcome expected, got, unindexed;
    kest_gate_index *index;
    kest_gate_set *set;
    kest_gate_case c;

    w.nnodes = w.nlimits = 0;
    read_context(&t);
    read_session(&t);
    read_rules(&t);
    read_policies(&t);
    set = compile();
    c = (kest_gate_case){.set = set, .rules = &w.rules, .ctx = &w.ctx, .session = &w.session, .now = w.now, .limiter = answer,
                         .scratch = &scratch};
    expected = plain_decide();
    kest_gate_prepare(&c);
    REQUIRE(kest_gate_decide(&c, &got) == KEST_OK);
    REQUIRE(got.verdict == expected.verdict && got.policy == expected.policy);
    if (expected.verdict == KEST_REFUSE && expected.why != KEST_WHY_PERMITTED)
        REQUIRE(got.why == expected.why);
    REQUIRE(scratch.nlimits == (size_t)w.nconsulted);
    for (int i = 0; i < w.nconsulted; i++)
        REQUIRE(order[scratch.limits[i]] == w.consulted[i]);
    index = set->index; /* it only filters */
    set->index = NULL;
    REQUIRE(kest_gate_decide(&c, &unindexed) == KEST_OK && unindexed.verdict == got.verdict && unindexed.why == got.why);
    REQUIRE(unindexed.policy == got.policy && unindexed.item == got.item);
    set->index = index;
    kest_gate_set_free(set);
    kest_gate_scratch_free(&scratch);
    return 0;
}
