#include "dense.h"

/* Words that names of services, operations, policies and taints are made of, then the parts of an entry. Text nearer
 * to the end is cheaper to refer to, so the commonest stands last. */
const uint8_t kest_dense_dictionary[] =
    "kubernetes cluster.local namespace service-account .internal .svc staging production gateway ingress "
    "egress proxy edge frontend backend worker scheduler retriever embedding vector index chunk rerank "
    "ranker scorer classifier extractor summariser summarizer translator generator orchestrator coordinator "
    "supervisor executor planner billing payment invoice refund charge_card checkout cart inventory shipping "
    "supplier customer account profile session token credential consent exporter importer loader writer "
    "reader crawler scraper parser validator sanitiser sanitizer redactor reviewer approver auditor monitor "
    "notifier ticket incident alert metric report_summary dashboard email message_thread calendar "
    "document_page attachment image audio video transcript database table column row query_sql schema "
    "migration snapshot backup archive bucket object_store stream topic event webhook callback "
    "delegation_policy gateway_policy task_policy workload_user_policy data-classification baseline-auth "
    "allow_trusted allow_internal allow_egress tenant_isolation no_tainted_export check_access check_budget "
    "least_privilege deny_external require_approval rate_limit agents/ finance/ platform/ security/ "
    "analytics/ research/ support/ sales/ ml/ data/ infra/ get_user set_ update_record create_order delete_ "
    "list_items fetch_orders load_documents read_file write_report send_request receive_response "
    "search_documents find_ lookup_ resolve_ handle_request process_data process_payment execute_task "
    "run_job invoke_tool call_model call_supplier plan_steps next_step review_answer approve_ reject_ "
    "authorise authorize authenticate validate_input verify_ check_ classify_ extract_ transform_ clean_ "
    "enrich_ merge_ filter_ rank_ score_ explain_ summarise_ translate_ render_ publish_ notify_ export_ "
    "import_ ingest_ redact_ encrypt_ decrypt_ sign_ "
    "\"deviations\":[{\"approver\":\"\",\"policy\":\"\",\"reason\":\"\",\"tier\":\"enterprise\"}],\"kest.continues\":\""
    "\"kest.opaque_args\":\"\"kest.resource_attr\":\"{\\\"\"kest.resource_id\":\"\"kest.root\":\"thread-without-context\""
    "snapshot\"critic\"sanitizer\"data\"user_input\"unverified\"contains_pii\"kest.unverified\"kest.trust_override\":\"100\","
    "kest.identity\":\"{\\\"agent\\\":null,\\\"task\\\":null,\\\"user\\\":null}\",\"trace_id\":\"\""
    "kest/allow\"invoke\"spiffe://kest.internal/local-workload-agent-gateway-service.example.com/ns/prod/default/sa/"
    "system\0{\"added_taints\":[],\"classification\":\"\",\"content_hash\":\"\",\"entry_id\":\"\",\"environment\":{},"
    "\"input_hash\":\"\",\"labels\":{\"principal\":\"\"},\"metadata\":null,\"operation\":\"\",\"otel_context\":{},"
    "\"parent_ids\":[],\"policy_context\":{\"app_policies\":[],\"deviations\":[],\"enterprise_policies\":[],"
    "\"function_policies\":[],\"platform_policies\":[]},\"removed_taints\":[],\"runtime\":{\"name\":\"kest-c\","
    "\"version\":\"0.3.0\"},\"schema_version\":\"0.3.0\",\"taints\":[],\"timestamp_ms\":,\"trust_score\":}";
const size_t kest_dense_dictionary_len = sizeof kest_dense_dictionary - 1;

const char *const kest_dense_markers[KEST_CUTS] = {
    "{\"added_taints\":[]", ",\"classification\":\"\"", ",\"entry_id\":\"\"", ",\"input_hash\":\"\"", "\"principal\":\"\"",
    ",\"operation\":\"\"", ",\"parent_ids\":[]", ",\"function_policies\":[]", ",\"removed_taints\":[]", ",\"taints\":[]",
    ",\"timestamp_ms\":,", ",\"trust_score\":}",
};
