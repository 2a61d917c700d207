/* replay.c: runs a fuzzing harness over its committed corpus, without libFuzzer: every input that ever led somewhere new. */
#include "../fuzz/fuzz.h"

#include <dirent.h>

/* For harnesses that need none. */
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

static void replay(const char *folder, const char *name)
{
    uint8_t room[65536];
    char path[4096];
    FILE *file;
    size_t size;

    REQUIRE((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path);
    REQUIRE((file = fopen(path, "rb")) != NULL);
    size = fread(room, 1, sizeof room, file);
    REQUIRE(size < sizeof room && !ferror(file) && fclose(file) == 0);
    {
        uint8_t *data = exact(room, size);

        REQUIRE(LLVMFuzzerTestOneInput(data, size) == 0);
        free(data);
    }
}

int main(int argc, char **argv)
{
    unsigned long inputs = 0;
    DIR *folder;

    REQUIRE(argc == 2 && (folder = opendir(argv[1])) != NULL);
    REQUIRE(LLVMFuzzerInitialize(&argc, &argv) == 0);
    for (struct dirent *one; (one = readdir(folder));)
        if (one->d_name[0] != '.') {
            replay(argv[1], one->d_name);
            inputs++;
        }
    (void)closedir(folder);
    REQUIRE(inputs > 0);
    (void)printf("%lu inputs, every property holds\n", inputs);
    return 0;
}
