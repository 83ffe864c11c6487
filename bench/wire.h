/* What the load generator and the echo backend share: the opening handshake's accept value and the frame
 * header of RFC 6455, a clock, a random source, and ways to say what is wrong.
 *
 * Everything is static: each program is one translation unit, built with `cc -O2 FILE.c`.
 */
#ifndef TRIO_WSB_BENCH_WIRE_H
#define TRIO_WSB_BENCH_WIRE_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#define KEY_CHARS 24         /* Sec-WebSocket-Key: base64 of 16 bytes (RFC 6455 section 4.1) */
#define ACCEPT_CHARS 28      /* Sec-WebSocket-Accept: base64 of a SHA-1 digest (section 4.2.2) */
#define HEAD_LIMIT 16384     /* longest request or response head that either program takes */
#define FRAME_HEADER_MAX 14  /* 2 bytes, 8 of extended length, 4 of masking key (section 5.2) */
#define CONTROL_MAX 125      /* payload of a control frame (section 5.5) */

enum { OP_BINARY = 0x2, OP_CLOSE = 0x8, OP_PING = 0x9, OP_PONG = 0xA };
enum { BIT_FIN = 0x80, BITS_RSV = 0x70, BITS_OPCODE = 0x0F, BIT_CONTROL = 0x08, BIT_MASK = 0x80 };

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline void *allocate(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory)
        die("out of memory (%zu bytes)", size);
    return memory;
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* xorshift64*: fast and good enough for masking keys of a benchmark; `*state` must not be 0. */
static inline uint64_t random_u64(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1Du;
}

static inline uint32_t rotate_left(uint32_t value, unsigned by)
{
    return value << by | value >> (32 - by);
}

static inline void sha1_block(uint32_t state[5], const uint8_t *block)
{
    uint32_t w[80];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate_left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20)
            f = (b & c) | (~b & d), k = 0x5A827999;
        else if (i < 40)
            f = b ^ c ^ d, k = 0x6ED9EBA1;
        else if (i < 60)
            f = (b & c) | (b & d) | (c & d), k = 0x8F1BBCDC;
        else
            f = b ^ c ^ d, k = 0xCA62C1D6;
        uint32_t next = rotate_left(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate_left(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

static inline void base64(char *out, const uint8_t *in, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        size_t have = size - i < 3 ? size - i : 3;
        uint32_t bits = (uint32_t)in[i] << 16;
        bits |= have > 1 ? (uint32_t)in[i + 1] << 8 : 0;
        bits |= have > 2 ? in[i + 2] : 0;
        *out++ = digits[bits >> 18 & 63];
        *out++ = digits[bits >> 12 & 63];
        *out++ = have > 1 ? digits[bits >> 6 & 63] : '=';
        *out++ = have > 2 ? digits[bits & 63] : '=';
    }
}

/* The Sec-WebSocket-Accept for a key of KEY_CHARS characters; `out` takes ACCEPT_CHARS, without a NUL. */
static inline void accept_value(char *out, const char *key)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    enum { LENGTH = KEY_CHARS + sizeof guid - 1 };
    uint8_t message[128] = {0}; /* 60 bytes and their padding fill two blocks */
    memcpy(message, key, KEY_CHARS);
    memcpy(message + KEY_CHARS, guid, sizeof guid - 1);
    message[LENGTH] = 0x80;
    message[126] = LENGTH * 8 >> 8;
    message[127] = LENGTH * 8 & 0xFF;
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    sha1_block(state, message);
    sha1_block(state, message + 64);
    uint8_t digest[20];
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
    base64(out, digest, sizeof digest);
}

/* The value of field `name` in a head of `size` bytes, or NULL; `*length` gets its length without blanks. */
static inline const char *field(const char *head, size_t size, const char *name, size_t *length)
{
    size_t name_length = strlen(name);
    const char *end = head + size, *line = head, *next;
    *length = 0;
    for (; (next = memmem(line, (size_t)(end - line), "\r\n", 2)); line = next + 2) {
        if ((size_t)(next - line) <= name_length || line[name_length] != ':' || strncasecmp(line, name, name_length))
            continue;
        const char *value = line + name_length + 1;
        while (value < next && (*value == ' ' || *value == '\t'))
            value++;
        const char *last = next;
        while (last > value && (last[-1] == ' ' || last[-1] == '\t'))
            last--;
        *length = (size_t)(last - value);
        return value;
    }
    return NULL;
}

static inline bool field_is(const char *head, size_t size, const char *name, const char *value)
{
    size_t length;
    const char *found = field(head, size, name, &length);
    return found && length == strlen(value) && !strncasecmp(found, value, length);
}

/* How many bytes the frame header has that begins with these two bytes. */
static inline size_t frame_header_size(const uint8_t *header)
{
    unsigned length = header[1] & 0x7F;
    return 2 + (length == 126 ? 2 : length == 127 ? 8 : 0) + (header[1] & BIT_MASK ? 4 : 0);
}

/* The payload length that a complete frame header tells. */
static inline uint64_t frame_payload_size(const uint8_t *header)
{
    uint64_t length = header[1] & 0x7F;
    size_t extended = length == 126 ? 2 : length == 127 ? 8 : 0;
    if (extended)
        length = 0;
    for (size_t i = 0; i < extended; i++)
        length = length << 8 | header[2 + i];
    return length;
}

/* Writes a frame header to `out`, masked when `key` is given, and returns its size. */
static inline size_t frame_header(uint8_t *out, uint8_t first, uint64_t length, const uint8_t *key)
{
    size_t size = 2, extended = length < 126 ? 0 : length < 65536 ? 2 : 8;
    out[0] = first;
    out[1] = (uint8_t)((key ? BIT_MASK : 0) | (extended == 0 ? length : extended == 2 ? 126 : 127));
    for (size_t i = 0; i < extended; i++)
        out[size++] = (uint8_t)(length >> 8 * (extended - 1 - i));
    if (key) {
        memcpy(out + size, key, 4);
        size += 4;
    }
    return size;
}

/* Copies `size` bytes, masked (or unmasked) as bytes `phase`... of the payload (section 5.3). */
static inline void mask_copy(uint8_t *restrict out, const uint8_t *restrict in, size_t size, const uint8_t *key,
                             unsigned phase)
{
    uint8_t turned[8];
    uint64_t wide, word;
    for (unsigned i = 0; i < 8; i++)
        turned[i] = key[(phase + i) & 3];
    memcpy(&wide, turned, 8);
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, in + i, 8);
        word ^= wide;
        memcpy(out + i, &word, 8);
    }
    for (; i < size; i++)
        out[i] = in[i] ^ turned[i & 7];
}

/* No Nagle delay, and Reno whatever the system's default is: a congestion control that paces (BBR) takes time
 * that the two ends should leave to what is measured. An accepted socket inherits both. The proxy between
 * them keeps the system's default.
 */
static inline void tune(int fd)
{
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

/* An address in 127.0.0.0/8: no benchmark traffic can leave the machine. */
static inline struct sockaddr_in loopback(uint32_t host, uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(0x7F000000u | (host & 0xFFFFFFu))};
}

#endif
