/* The backends of the benchmarks: WebSocket echo servers on free ports of 127.0.0.1.
 *
 *   echo_backend [N]      prints "listening PORT..." (N of them, 1 if not said) and serves until its standard
 *                         input ends
 *
 * Data frames are echoed while they arrive (unmasked, with the same first byte, so fragments stay
 * fragments), pings are answered, a Close is echoed. GET /metric tells how many sessions the port has. A
 * masked frame is required, reserved bits are refused (RFC 6455 section 5.1 and 5.2): the connection is closed.
 *
 * One process serves all the ports: with one for each, the scheduler of a small machine would be what is
 * measured (on two cores, three processes echo little more than half of what one does). One thread,
 * edge-triggered epoll, one receive buffer for all: what a session keeps while idle is its
 * `struct conn`. A peer that does not read is not read from either.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECEIVE_SIZE = 256 * 1024, EVENTS = 256, MAX_LISTENERS = 1000 };
/* An echo is never longer than what came in, but for one header or control payload kept from earlier. */
enum { SEND_SIZE = RECEIVE_SIZE + HEAD_LIMIT };

enum stage { READING_HEAD, OPEN, CLOSING };

struct listener {
    int fd;
    uint16_t port;
    unsigned long sessions; /* open ones */
};

struct conn {
    int fd;
    struct listener *listener;
    enum stage stage;
    bool counted; /* among its listener's sessions */
    uint8_t *head; /* the request head so far; freed when it is answered */
    size_t head_size;
    uint8_t *pending; /* what the socket did not take */
    size_t pending_size, pending_sent;
    uint8_t header[FRAME_HEADER_MAX]; /* of the frame under way */
    uint8_t header_size;
    bool in_payload;
    unsigned phase; /* into the masking key */
    uint64_t left;  /* payload bytes to come */
    uint8_t control[CONTROL_MAX];
    uint8_t control_size;
};

static uint8_t received[RECEIVE_SIZE], echo[SEND_SIZE];
static struct listener listeners[MAX_LISTENERS];

static void drop(struct conn *c)
{
    c->listener->sessions -= c->counted;
    close(c->fd);
    free(c->head);
    free(c->pending);
    free(c);
}

/* Sends what is pending. False: the socket takes no more now, or is broken (its next read tells). */
static bool flush(struct conn *c)
{
    while (c->pending_sent < c->pending_size) {
        ssize_t n = send(c->fd, c->pending + c->pending_sent, c->pending_size - c->pending_sent, MSG_NOSIGNAL);
        if (n < 0)
            return false;
        c->pending_sent += (size_t)n;
    }
    free(c->pending);
    c->pending = NULL;
    c->pending_size = c->pending_sent = 0;
    return true;
}

/* Sends `size` bytes and keeps what the socket does not take. False: the connection is broken. */
static bool send_or_keep(struct conn *c, const uint8_t *bytes, size_t size)
{
    ssize_t n = size ? send(c->fd, bytes, size, MSG_NOSIGNAL) : 0;
    if (n < 0 && errno != EAGAIN)
        return false;
    size_t sent = n < 0 ? 0 : (size_t)n;
    if (sent < size) {
        c->pending = allocate(size - sent);
        c->pending_size = size - sent;
        memcpy(c->pending, bytes + sent, size - sent);
    }
    return true;
}

static size_t end_control(struct conn *c, uint8_t *out)
{
    uint8_t opcode = c->header[0] & BITS_OPCODE;
    if (opcode == OP_PONG)
        return 0;
    if (opcode == OP_CLOSE)
        c->stage = CLOSING;
    size_t size = frame_header(out, BIT_FIN | (opcode == OP_PING ? OP_PONG : OP_CLOSE), c->control_size, NULL);
    memcpy(out + size, c->control, c->control_size);
    return size + c->control_size;
}

/* Takes frame bytes and writes their echo. Returns the size of the echo, or -1 for a protocol error. */
static ssize_t take_frames(struct conn *c, const uint8_t *in, size_t size, uint8_t *out)
{
    size_t at = 0, made = 0;
    while (at < size && c->stage == OPEN) {
        bool control = c->header[0] & BIT_CONTROL;
        if (!c->in_payload) {
            size_t want = c->header_size < 2 ? 2 : frame_header_size(c->header);
            while (c->header_size < want && at < size) {
                c->header[c->header_size++] = in[at++];
                if (c->header_size == 2)
                    want = frame_header_size(c->header);
            }
            if (c->header_size < want)
                break;
            control = c->header[0] & BIT_CONTROL;
            c->left = frame_payload_size(c->header);
            if (c->header[0] & BITS_RSV || !(c->header[1] & BIT_MASK) || (control && c->left > CONTROL_MAX))
                return -1;
            c->in_payload = true;
            c->phase = c->control_size = 0;
            if (!control)
                made += frame_header(out + made, c->header[0], c->left, NULL);
        }
        size_t n = size - at < c->left ? size - at : (size_t)c->left;
        uint8_t *to = control ? c->control + c->control_size : out + made;
        mask_copy(to, in + at, n, c->header + c->header_size - 4, c->phase);
        if (control)
            c->control_size = (uint8_t)(c->control_size + n);
        else
            made += n;
        at += n;
        c->left -= n;
        c->phase += (unsigned)n;
        if (c->left == 0) {
            c->in_payload = false;
            if (control)
                made += end_control(c, out + made);
            c->header_size = 0;
        }
    }
    return (ssize_t)made;
}

static size_t answer_plain(struct conn *c, const char *head, uint8_t *out)
{
    char body[128];
    const char *status = "200 OK";
    if (!strncmp(head, "GET /metric ", 12))
        snprintf(body, sizeof body, "{\"agentsConnections\": %lu}", c->listener->sessions);
    else if (!strncmp(head, "GET /api/health ", 16))
        snprintf(body, sizeof body, "{\"status\": \"ok\"}");
    else {
        status = "404 Not Found";
        snprintf(body, sizeof body, "{}");
    }
    c->stage = CLOSING;
    return (size_t)sprintf((char *)out,
                           "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                           "Connection: close\r\n\r\n%s",
                           status, strlen(body), body);
}

static size_t answer_upgrade(struct conn *c, const char *key, uint8_t *out)
{
    char accept[ACCEPT_CHARS];
    accept_value(accept, key);
    c->stage = OPEN;
    c->counted = true;
    c->listener->sessions++;
    return (size_t)sprintf((char *)out,
                           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Accept: %.*s\r\n\r\n",
                           ACCEPT_CHARS, accept);
}

/* Takes bytes of the request head, and of what follows it. Returns the size of the answer, or -1. */
static ssize_t take_head(struct conn *c, const uint8_t *in, size_t size, uint8_t *out)
{
    size_t had = c->head_size, n = size < HEAD_LIMIT - had ? size : HEAD_LIMIT - had;
    if (!c->head)
        c->head = allocate(HEAD_LIMIT);
    memcpy(c->head + had, in, n);
    c->head_size += n;
    char *head = (char *)c->head, *end = memmem(head, c->head_size, "\r\n\r\n", 4);
    if (!end)
        return c->head_size == HEAD_LIMIT ? -1 : 0;
    size_t head_size = (size_t)(end - head) + 4, key_size;
    const char *key = field(head, head_size, "Sec-WebSocket-Key", &key_size);
    if (!field_is(head, head_size, "Upgrade", "websocket"))
        return (ssize_t)answer_plain(c, head, out);
    if (!key || key_size != KEY_CHARS)
        return -1;
    size_t made = answer_upgrade(c, key, out);
    free(c->head);
    c->head = NULL;
    size_t used = head_size - had;
    ssize_t echoed = take_frames(c, in + used, size - used, out + made);
    return echoed < 0 ? -1 : (ssize_t)made + echoed;
}

static void serve(struct conn *c, uint32_t events)
{
    const bool ending = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    for (;;) {
        if (c->pending && !flush(c)) {
            if (errno != EAGAIN)
                drop(c);
            return;
        }
        if (c->stage == CLOSING) {
            drop(c);
            return;
        }
        ssize_t n = recv(c->fd, received, sizeof received, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            drop(c);
            return;
        }
        ssize_t made = c->stage == OPEN ? take_frames(c, received, (size_t)n, echo)
                                        : take_head(c, received, (size_t)n, echo);
        if (made < 0 || !send_or_keep(c, echo, (size_t)made)) {
            drop(c);
            return;
        }
        /* A short read has emptied the socket, unless an end that was announced with it is still to be read:
         * no further edge would tell of that one. */
        if ((size_t)n < sizeof received && !ending && !c->pending && c->stage != CLOSING)
            return;
    }
}

static void accept_all(struct listener *listener, int epoll)
{
    for (;;) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            if (errno == ECONNABORTED || errno == EINTR)
                continue;
            die("echo_backend: accept: %s", strerror(errno));
        }
        struct conn *c = allocate(sizeof *c);
        c->fd = fd;
        c->listener = listener;
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e))
            die("echo_backend: epoll_ctl: %s", strerror(errno));
    }
}

static void listen_on_free_port(struct listener *listener, int epoll)
{
    struct sockaddr_in address = loopback(1, 0);
    socklen_t size = sizeof address;
    listener->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    tune(listener->fd);
    if (listener->fd < 0 || bind(listener->fd, (struct sockaddr *)&address, size) || listen(listener->fd, 4096) ||
        getsockname(listener->fd, (struct sockaddr *)&address, &size))
        die("echo_backend: cannot listen on 127.0.0.1: %s", strerror(errno));
    listener->port = ntohs(address.sin_port);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = listener};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener->fd, &e))
        die("echo_backend: epoll_ctl: %s", strerror(errno));
}

/* Whether standard input has ended; anything that comes in on it is ignored. */
static bool input_ended(void)
{
    char ignored[256];
    return read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? strtol(argv[1], NULL, 10) : 1;
    if (count < 1 || count > MAX_LISTENERS)
        die("usage: echo_backend [1..%d]", MAX_LISTENERS);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input))
        die("echo_backend: epoll (standard input must be a pipe): %s", strerror(errno));
    printf("listening");
    for (long i = 0; i < count; i++) {
        listen_on_free_port(&listeners[i], epoll);
        printf(" %u", listeners[i].port);
    }
    printf("\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            die("echo_backend: epoll_wait: %s", strerror(errno));
        for (int i = 0; i < ready; i++) {
            void *whose = events[i].data.ptr;
            if (whose == NULL) {
                if (input_ended())
                    return 0;
            } else if ((struct listener *)whose >= listeners && (struct listener *)whose < listeners + count)
                accept_all(whose, epoll);
            else
                serve(whose, events[i].events);
        }
    }
}
