/* The least that takes the place of the signing service: reads the key shares from the file that its configuration names,
   then serves on 127.0.0.1:50051. It answers each connection with the number of bytes it read, and signs nothing. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what) {
    perror(what);
    return 1;
}

int main(int argc, char **argv) {
    char path[256] = "";
    FILE *configuration = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (!configuration || !fgets(path, sizeof path, configuration)) return fail("configuration");
    path[strcspn(path, "\n")] = 0;

    FILE *shares = fopen(path, "r");
    if (!shares) return fail(path);
    long bytes = 0;
    while (fgetc(shares) != EOF) bytes++;
    fclose(shares);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(50051)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (void *)&address, sizeof address) || listen(listener, 16)) return fail("50051");
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0) continue;
        dprintf(connection, "%ld\n", bytes);
        close(connection);
    }
}
