/* The floor: what it costs to write the same ready bytes to N sockets, and nothing else. Obeys the commands of
 * `servers/control.py` as far as they concern it; knows no rooms, no compression, and answers only handshakes and
 * close frames. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX = 16384, EVENTS = 256, LINE = 1 << 22 };

static int epoll, listener, count;
static int clients[MAX], place[1 << 16], open_[1 << 16];

static uint32_t rol(uint32_t x, int n) { return x << n | x >> (32 - n); }

/* SHA-1 (FIPS 180) of fewer than 120 bytes. */
static void sha1(const char *text, uint8_t out[20]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t block[128] = {0};
    size_t size = strlen(text), whole = size + 9 > 64 ? 128 : 64;
    memcpy(block, text, size);
    block[size] = 0x80;
    block[whole - 2] = (uint8_t)(size >> 5);
    block[whole - 1] = (uint8_t)(size << 3);
    for (size_t at = 0; at < whole; at += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++) {
            const uint8_t *p = block + at + 4 * i;
            w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        }
        for (int i = 16; i < 80; i++) w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
            uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t t = rol(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rol(b, 30), b = a, a = t;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - i % 4 * 8));
}

static void base64(const uint8_t in[20], char out[29]) {
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 7; i++) {
        uint32_t v = (uint32_t)in[3 * i] << 16 | (uint32_t)in[3 * i + 1] << 8 | (i < 6 ? in[3 * i + 2] : 0);
        for (int j = 0; j < 4; j++) out[4 * i + j] = set[v >> (18 - 6 * j) & 63];
    }
    out[27] = '=', out[28] = 0;
}

static void drop(int fd) {
    if (open_[fd]) {
        clients[place[fd]] = clients[--count];
        place[clients[place[fd]]] = place[fd];
        open_[fd] = 0;
    }
    close(fd);
}

static void handshake(int fd, const char *request) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const char *key = strcasestr(request, "Sec-WebSocket-Key: ");
    char text[64], accept[29], answer[200];
    uint8_t hash[20];
    if (key == NULL || count == MAX) {
        drop(fd);
        return;
    }
    snprintf(text, sizeof text, "%.24s%s", key + 19, guid);
    sha1(text, hash);
    base64(hash, accept);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    if (write(fd, answer, (size_t)size) != size) {
        drop(fd);
        return;
    }
    place[fd] = count;
    clients[count++] = fd;
    open_[fd] = 1;
}

static void readable(int fd) {
    char data[2048];
    ssize_t size = read(fd, data, sizeof data - 1);
    if (size <= 0) {
        if (size == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    data[size] = 0;
    if (!open_[fd]) {
        handshake(fd, data); /* on loopback it comes in one piece */
    } else if ((uint8_t)data[0] == 0x88) {
        static const uint8_t goodbye[] = {0x88, 2, 0x03, 0xE8};
        if (write(fd, goodbye, sizeof goodbye) < 0) perror("close frame");
        drop(fd);
    }
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double number(const char *line, const char *name, double otherwise) {
    char key[40];
    snprintf(key, sizeof key, "\"%s\": ", name);
    const char *at = strstr(line, key);
    return at == NULL ? otherwise : atof(at + strlen(key));
}

/* All of it, even if the socket has no room for a while. */
static void write_all(int fd, const uint8_t *data, size_t size) {
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            poll(&p, 1, -1);
        } else if (sent < 0) {
            return;
        } else {
            data += sent, size -= (size_t)sent;
        }
    }
}

/* One message to all. */
static void send_all(int64_t seq, int text) {
    static uint8_t frame[1024];
    char *payload = (char *)frame + 4;
    int size = snprintf(payload, 1000, "{\"event\":\"news\",\"data\":{\"seq\":%lld,\"t\":%lld,\"text\":\"%.*s\"}}",
                        (long long)seq, (long long)now(), text,
                        "the train to platform seven leaves in about four minutes please mind the gap and keep your "
                        "tickets ready alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike "
                        "the train to platform seven leaves in about four minutes please mind the gap and keep your "
                        "tickets ready alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike");
    uint8_t *start = frame + (size < 126 ? 2 : 0);
    start[0] = 0x81;
    if (size < 126) {
        start[1] = (uint8_t)size;
    } else {
        start[1] = 126, start[2] = (uint8_t)(size >> 8), start[3] = (uint8_t)size;
    }
    size_t whole = (size_t)((uint8_t *)payload + size - start);
    for (int i = 0; i < count; i++) write_all(clients[i], start, whole);
}

static void broadcast(const char *line) {
    static int64_t next = 0;
    int due = (int)number(line, "count", 0), burst = (int)number(line, "burst", 1), sent = 0, late = 0;
    double pace = number(line, "per_second", 0), seconds = number(line, "seconds", 0);
    const char *texts = strstr(line, "\"texts\": [\"");
    int text = texts == NULL ? 0 : (int)strcspn(texts + 11, "\"");
    int64_t first = next, begin = now();
    while (sent < due) {
        int64_t at = begin, present = now();
        if (pace > 0) {
            at += (int64_t)((double)(sent / burst) * 1e9 / pace);
            late += (double)(present - at) > 1e9 / pace;
        } else if (seconds > 0 && (double)(present - begin) > seconds * 1e9) {
            break;
        }
        struct timespec t = {at / 1000000000, at % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        for (int i = 0; i < burst; i++) send_all(next++, text);
        sent += burst;
    }
    printf("{\"first\": %lld, \"each\": %d, \"late\": %d}\n", (long long)first, sent, late);
}

int main(void) {
    static char line[LINE];
    static size_t size;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 2048) < 0) return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    int watched[] = {0, listener};
    for (int i = 0; i < 2; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.fd = watched[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, watched[i], &e);
    }
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int client, one = 1;
                while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    struct epoll_event e = {.events = EPOLLIN, .data.fd = client};
                    if (client >= 1 << 16) return 1;
                    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    epoll_ctl(epoll, EPOLL_CTL_ADD, client, &e);
                }
            } else if (fd != 0) {
                readable(fd);
            } else {
                ssize_t more = read(0, line + size, LINE - 1 - size);
                if (more <= 0) return 0;
                size += (size_t)more;
                line[size] = 0;
                if (line[size - 1] != '\n') continue; /* the next command comes after the answer to this one */
                if (strstr(line, "\"command\": \"broadcast\"") != NULL) {
                    broadcast(line);
                } else {
                    printf("{\"connected\": %d}\n", count);
                }
                fflush(stdout);
                size = 0;
            }
        }
    }
}
