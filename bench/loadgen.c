/* The load generator of the benchmarks: WebSocket clients against ports of 127.0.0.1, in closed loop.
 *
 *   loadgen echo       --ports P[,P...] --sessions N --size BYTES --seconds S [--warmup S]
 *   loadgen handshakes --ports P[,P...] --sessions N --seconds S [--warmup S]
 *   loadgen rate       --ports P[,P...] --sessions N --size BYTES --seconds S --rate R [--warmup S]
 *   loadgen storm      --ports P[,P...] --sessions N
 *   loadgen idle       --ports P[,P...] --sessions N [--size BYTES]
 *
 * echo: each session sends a masked binary message, waits for its echo, compares every byte, and sends the
 * next. handshakes: N clients at a time connect, upgrade with a head as browsers send it, check the 101 and
 * drop the connection. rate: R messages a second over all sessions, each session no more than one at a time;
 * latencies count from when a message was due; a line "measuring" says that the warm-up is over. storm: N clients connect at once, upgrade and exchange one
 * message; who is refused (502, 503) comes back RETRY_MS later. idle: opens N sessions, exchanges one message on each so that both relay directions
 * have worked, prints "ready" and holds them until standard input ends; then one more message on each shows
 * that all are alive. One JSON object on standard output tells the result; times are CLOCK_MONOTONIC.
 *
 * Anything unexpected (a wrong byte, a wrong accept value, a session lost or stalled) ends the program with
 * one line on standard error and status 1: there is no figure for a run that went wrong.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <getopt.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { RECEIVE_SIZE = 256 * 1024, EVENTS = 256, MAX_PORTS = 64 };
enum { OPENING_AT_ONCE = 32 };          /* handshakes under way while sessions are being opened */
enum { SOURCES = 32 };                  /* client addresses, so that TIME_WAIT does not run out of ports */
enum { POOL_SPREAD = 65536 };           /* messages are slices of one random pool, at so many offsets */
enum { STALL_SECONDS = 10 };            /* no event for so long: something hangs */
enum { SLACK_SECONDS = 60, HOLD_SECONDS = 900 }; /* the program ends itself after that, whatever happens */

enum { TICK_US = 500, RETRY_MS = 200 };

enum mode { ECHO, HANDSHAKES, RATE, STORM, IDLE };
enum stage { UNUSED, UPGRADING, OPENED, REFUSED };

struct session {
    int fd;
    enum stage stage;
    uint64_t started_ns; /* of the handshake or of the message under way */
    uint64_t retry_ns;   /* when a refused one comes back */
    uint8_t *out;        /* the head or frame under way */
    size_t out_size, out_sent;
    char accept[ACCEPT_CHARS];
    char *head; /* the response head so far */
    size_t head_size;
    bool in_flight;
    const uint8_t *expected; /* the payload that was sent */
    uint8_t header[FRAME_HEADER_MAX];
    size_t header_size;
    size_t payload_got;
};

static struct {
    enum mode mode;
    uint16_t ports[MAX_PORTS];
    size_t port_count, sessions, size;
    double seconds, warmup, rate;
} option = {.size = 64, .sessions = 20, .seconds = 3, .warmup = 0.5, .rate = 1000};

static int epoll;
static struct session *sessions;
static size_t started, opened, refused, waiting, in_flight; /* sessions; in_flight also counts handshakes under way */
static uint64_t measure_from = UINT64_MAX, measure_until = UINT64_MAX;
static uint64_t counted, random_state;
static uint8_t *pool, received[RECEIVE_SIZE];

/* ---- latencies: log-linear buckets, so that a percentile is off by less than one part in 128 ---- */

enum { SUB_BITS = 8, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) * SUB };

static uint64_t histogram[BUCKETS], recorded, slowest;

static void record(uint64_t ns)
{
    unsigned shift = ns < SUB ? 0 : 64 - SUB_BITS - (unsigned)__builtin_clzll(ns);
    histogram[shift * SUB + (ns >> shift)]++;
    recorded++;
    slowest = ns > slowest ? ns : slowest;
}

static double percentile_us(double fraction)
{
    uint64_t rank = (uint64_t)(fraction * (double)recorded), seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > rank)
            return (double)((uint64_t)(i % SUB) << i / SUB) / 1e3;
    }
    return (double)slowest / 1e3;
}

/* ---- one session ---- */

static void send_more(struct session *s)
{
    while (s->out_sent < s->out_size) {
        ssize_t n = send(s->fd, s->out + s->out_sent, s->out_size - s->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            die("a session broke while sending: %s", strerror(errno));
        s->out_sent += (size_t)n;
    }
}

static void send_message(struct session *s, uint64_t now)
{
    uint64_t random = random_u64(&random_state);
    uint8_t key[4];
    memcpy(key, &random, sizeof key);
    s->expected = pool + (random >> 32) % POOL_SPREAD;
    s->out_size = frame_header(s->out, BIT_FIN | OP_BINARY, option.size, key);
    mask_copy(s->out + s->out_size, s->expected, option.size, key, 0);
    s->out_size += option.size;
    s->out_sent = s->header_size = s->payload_got = 0;
    s->started_ns = now;
    s->in_flight = true;
    in_flight++;
    send_more(s);
}

/* The head of a browser's opening handshake, about 700 bytes, with a fresh key. */
static void write_request(struct session *s, uint16_t port)
{
    uint64_t nonce[2] = {random_u64(&random_state), random_u64(&random_state)};
    char key[KEY_CHARS];
    base64(key, (const uint8_t *)nonce, sizeof nonce);
    accept_value(s->accept, key);
    s->out_sent = 0;
    s->out_size = (size_t)sprintf(
        (char *)s->out,
        "GET /chat/room/42?v=2 HTTP/1.1\r\n"
        "Host: 127.0.0.1:%u\r\n"
        "Connection: Upgrade\r\n"
        "Pragma: no-cache\r\n"
        "Cache-Control: no-cache\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n"
        "Upgrade: websocket\r\n"
        "Origin: http://127.0.0.1:%u\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
        "Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
        "Cookie: session=b3f1c2d4e5a6978812345678901234567890abcdef; theme=dark; consent=eyJhIjoxLCJiIjoyLCJjIjozfQ\r\n"
        "Sec-WebSocket-Key: %.*s\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        "\r\n",
        port, port, KEY_CHARS, key);
}

static void start_session(struct session *s, uint64_t now)
{
    static size_t turn;
    uint16_t port = option.ports[turn % option.port_count];
    struct sockaddr_in from = loopback(0x101 + (uint32_t)(turn % SOURCES), 0), to = loopback(1, port);
    int yes = 1;
    turn++;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        die("socket: %s", strerror(errno));
    tune(s->fd);
    setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (bind(s->fd, (struct sockaddr *)&from, sizeof from))
        die("bind: %s", strerror(errno));
    if (connect(s->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        die("connect to 127.0.0.1:%u: %s", port, strerror(errno));
    if (s->stage != REFUSED) { /* else its time goes on */
        s->started_ns = now;
        in_flight++;
    }
    s->stage = UPGRADING;
    s->head_size = 0;
    write_request(s, port);
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = s};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &e))
        die("epoll_ctl: %s", strerror(errno));
}

static void start_sessions(uint64_t now)
{
    size_t at_once = option.mode == HANDSHAKES || option.mode == STORM ? option.sessions : OPENING_AT_ONCE;
    for (; started < option.sessions && started - opened < at_once; started++)
        start_session(&sessions[started], now);
}

static void check_response(const struct session *s, size_t size)
{
    size_t length;
    const char *accept = field(s->head, size, "Sec-WebSocket-Accept", &length);
    const char *line_end = memmem(s->head, size, "\r\n", 2);
    if (strncmp(s->head, "HTTP/1.1 101 ", 13))
        die("a handshake was answered with \"%.*s\"", (int)(line_end - s->head), s->head);
    if (!accept || length != ACCEPT_CHARS || memcmp(accept, s->accept, ACCEPT_CHARS))
        die("a 101 came with a wrong Sec-WebSocket-Accept");
    if (!field_is(s->head, size, "Upgrade", "websocket") || !field_is(s->head, size, "Connection", "Upgrade"))
        die("a 101 came without its Upgrade or Connection field");
    if (size < s->head_size)
        die("%zu bytes that nobody sent came after a 101", s->head_size - size);
}

static void take_response(struct session *s, const uint8_t *in, size_t size, uint64_t now)
{
    if (size > HEAD_LIMIT - s->head_size)
        die("a response head is longer than %d bytes", HEAD_LIMIT);
    memcpy(s->head + s->head_size, in, size);
    s->head_size += size;
    const char *end = memmem(s->head, s->head_size, "\r\n\r\n", 4);
    if (!end)
        return;
    if (option.mode == STORM && !strncmp(s->head, "HTTP/1.1 50", 11)) {
        close(s->fd);
        s->stage = REFUSED;
        s->retry_ns = now + RETRY_MS * 1000000ull;
        refused++;
        waiting++;
        return; /* still in flight: it comes back */
    }
    check_response(s, (size_t)(end - s->head) + 4);
    in_flight--;
    if (option.mode != HANDSHAKES) {
        s->stage = OPENED;
        opened++;
        if (option.mode == STORM)
            record(now - s->started_ns);
        if (option.mode == IDLE || option.mode == STORM)
            send_message(s, now);
        start_sessions(now);
        return;
    }
    if (now >= measure_from) {
        counted += now < measure_until;
        record(now - s->started_ns);
    }
    close(s->fd);
    s->stage = UNUSED;
    if (now < measure_until)
        start_session(s, now);
}

static void take_echo(struct session *s, const uint8_t *in, size_t size, uint64_t now)
{
    size_t at = 0;
    while (at < size) {
        if (!s->in_flight)
            die("a session got %zu bytes more than it sent", size - at);
        if (s->header_size < 2 || s->header_size < frame_header_size(s->header)) {
            s->header[s->header_size++] = in[at++];
            if (s->header_size == 1 && s->header[0] != (BIT_FIN | OP_BINARY))
                die("a frame began with 0x%02x rather than the echo's 0x82", s->header[0]);
            if (s->header_size == 2 && s->header[1] & BIT_MASK)
                die("a frame from the server was masked");
            continue;
        }
        if (frame_payload_size(s->header) != option.size)
            die("an echo has %llu bytes rather than %zu", (unsigned long long)frame_payload_size(s->header),
                option.size);
        size_t left = option.size - s->payload_got, n = size - at < left ? size - at : left;
        if (memcmp(in + at, s->expected + s->payload_got, n))
            die("an echo differs from what was sent, after byte %zu of %zu", s->payload_got, option.size);
        s->payload_got += n;
        at += n;
        if (s->payload_got < option.size)
            return;
        s->in_flight = false;
        in_flight--;
        if (option.mode == IDLE || option.mode == STORM || now < measure_from)
            counted += option.mode == IDLE || option.mode == STORM;
        else {
            counted += now < measure_until;
            record(now - s->started_ns);
        }
        if (option.mode == ECHO && now < measure_until)
            send_message(s, now);
    }
}

static void serve(struct session *s, uint32_t events)
{
    const bool ending = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    const uint64_t generation = s->started_ns;
    const int fd = s->fd;
    if (events & EPOLLOUT)
        send_more(s);
    for (;;) {
        ssize_t n = recv(fd, received, sizeof received, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            die("a session was lost %s: %s", s->stage == OPENED ? "after its upgrade" : "during its handshake",
                n ? strerror(errno) : "the other side closed it");
        uint64_t now = now_ns();
        if (s->stage == UPGRADING) {
            take_response(s, received, (size_t)n, now);
            if (s->stage == REFUSED || (option.mode == HANDSHAKES && (s->stage == UNUSED || s->started_ns != generation)))
                return; /* closed, and perhaps used for the next handshake already */
        } else
            take_echo(s, received, (size_t)n, now);
        if ((size_t)n < sizeof received && !ending)
            return; /* the socket is empty: a short read, and no end was announced */
    }
}

/* ---- the run ---- */

static int ticker = -1;
static size_t due_sent, next_session; /* messages of RATE that were sent, and whose turn it is */
static bool announced;

static void start_ticking(uint64_t tick_us)
{
    struct itimerspec every = {.it_interval.tv_nsec = (long)tick_us * 1000, .it_value.tv_nsec = (long)tick_us * 1000};
    ticker = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &ticker};
    if (ticker < 0 || timerfd_settime(ticker, 0, &every, NULL) || epoll_ctl(epoll, EPOLL_CTL_ADD, ticker, &e))
        die("timerfd: %s", strerror(errno));
}

/* Sends what is due by now, on the sessions that have nothing under way. */
static void send_due(uint64_t now)
{
    uint64_t start = measure_from - (uint64_t)(option.warmup * 1e9);
    size_t due = (size_t)((double)(now - start) / 1e9 * option.rate);
    for (size_t tried = 0; due_sent < due && tried < option.sessions; tried++) {
        struct session *s = &sessions[next_session++ % option.sessions];
        if (s->in_flight)
            continue;
        /* Counted from when it was due: a stall delays all that were due meanwhile, not one message. */
        send_message(s, start + (uint64_t)((double)++due_sent / option.rate * 1e9));
    }
}

static void tick(void)
{
    uint64_t ticks, now = now_ns();
    if (read(ticker, &ticks, sizeof ticks) < 0)
        return;
    if (option.mode == RATE && now >= measure_from && !announced) {
        announced = true;
        printf("measuring\n");
        fflush(stdout);
    }
    if (option.mode == RATE && now < measure_until)
        send_due(now);
    else if (option.mode == RATE) {
        close(ticker);
        ticker = -1;
    }
    for (size_t i = 0; option.mode == STORM && waiting && i < option.sessions; i++)
        if (sessions[i].stage == REFUSED && sessions[i].retry_ns <= now) {
            waiting--;
            start_session(&sessions[i], now);
        }
}

static bool input_ended(void)
{
    char ignored[256];
    return read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
}

/* Serves events until nothing is under way (`until_input_ends`: until standard input has ended). */
static void run(bool until_input_ends)
{
    while (until_input_ends || in_flight || (option.mode == RATE && ticker >= 0)) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, until_input_ends ? -1 : STALL_SECONDS * 1000);
        if (count < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        if (count == 0)
            die("%zu sessions stalled: nothing arrived for %d s", in_flight, STALL_SECONDS);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == &ticker)
                tick();
            else if (events[i].data.ptr)
                serve(events[i].data.ptr, events[i].events);
            else if (input_ended())
                return;
        }
    }
}

static void start_clock(void)
{
    uint64_t now = now_ns();
    measure_from = now + (uint64_t)(option.warmup * 1e9);
    measure_until = measure_from + (uint64_t)(option.seconds * 1e9);
}

static void print_latencies(void)
{
    printf(", \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n", percentile_us(0.5),
           percentile_us(0.99), percentile_us(0.999), (double)slowest / 1e3);
}

static void run_echo(void)
{
    start_sessions(now_ns());
    run(false);
    start_clock();
    uint64_t now = now_ns();
    for (size_t i = 0; i < option.sessions; i++)
        send_message(&sessions[i], now);
    run(false);
    double per_second = (double)counted / option.seconds;
    printf("{\"mode\": \"echo\", \"sessions\": %zu, \"size\": %zu, \"seconds\": %g, \"messages\": %llu, "
           "\"messages_per_s\": %.1f, \"mb_per_s\": %.3f",
           option.sessions, option.size, option.seconds, (unsigned long long)counted, per_second,
           per_second * (double)option.size / 1e6);
    print_latencies();
}

static void run_rate(void)
{
    start_sessions(now_ns());
    run(false);
    start_clock();
    start_ticking(TICK_US);
    run(false);
    printf("{\"mode\": \"rate\", \"sessions\": %zu, \"size\": %zu, \"seconds\": %g, \"wanted_per_s\": %g, "
           "\"messages\": %llu, \"messages_per_s\": %.1f",
           option.sessions, option.size, option.seconds, option.rate, (unsigned long long)counted,
           (double)counted / option.seconds);
    print_latencies();
}

static void run_storm(void)
{
    uint64_t begun = now_ns();
    start_ticking(RETRY_MS * 1000 / 4);
    start_sessions(begun);
    run(false);
    printf("{\"mode\": \"storm\", \"sessions\": %zu, \"alive\": %llu, \"refused\": %zu, \"storm_s\": %.3f",
           option.sessions, (unsigned long long)counted, refused, (double)(now_ns() - begun) / 1e9);
    print_latencies();
}

static void run_handshakes(void)
{
    start_clock();
    start_sessions(now_ns());
    run(false);
    printf("{\"mode\": \"handshakes\", \"sessions\": %zu, \"seconds\": %g, \"handshakes\": %llu, "
           "\"handshakes_per_s\": %.1f",
           option.sessions, option.seconds, (unsigned long long)counted, (double)counted / option.seconds);
    print_latencies();
}

static void run_idle(void)
{
    start_sessions(now_ns());
    run(false);
    printf("ready\n");
    fflush(stdout);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &e))
        die("standard input must be a pipe: %s", strerror(errno));
    run(true);
    epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    counted = 0;
    for (size_t i = 0; i < option.sessions; i++)
        send_message(&sessions[i], now_ns());
    run(false);
    printf("{\"mode\": \"idle\", \"sessions\": %zu, \"alive\": %llu}\n", option.sessions,
           (unsigned long long)counted);
}

/* ---- the command line ---- */

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most))
        die("--%s must be a number from %g to %g, not \"%s\"", name, least, most, text);
    return value;
}

static void parse_ports(char *text)
{
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
        if (option.port_count == MAX_PORTS)
            die("--ports takes at most %d ports", MAX_PORTS);
        option.ports[option.port_count++] = (uint16_t)number("ports", word, 1, 65535);
    }
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"ports", required_argument, NULL, 'p'},   {"sessions", required_argument, NULL, 'n'},
        {"size", required_argument, NULL, 'b'},    {"seconds", required_argument, NULL, 's'},
        {"warmup", required_argument, NULL, 'w'},  {"rate", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "echo"))
        option.mode = ECHO;
    else if (!strcmp(mode, "handshakes"))
        option.mode = HANDSHAKES;
    else if (!strcmp(mode, "rate"))
        option.mode = RATE;
    else if (!strcmp(mode, "storm"))
        option.mode = STORM;
    else if (!strcmp(mode, "idle"))
        option.mode = IDLE;
    else
        die("usage: loadgen echo|handshakes|rate|storm|idle --ports P[,P...] [--sessions N] [--size BYTES] [--seconds S]"
            " [--warmup S] [--rate R]");
    for (int letter; (letter = getopt_long(argc - 1, argv + 1, "", known, NULL)) != -1;) {
        if (letter == 'p')
            parse_ports(optarg);
        else if (letter == 'n')
            option.sessions = (size_t)number("sessions", optarg, 1, 100000);
        else if (letter == 'b')
            option.size = (size_t)number("size", optarg, 1, 16 << 20);
        else if (letter == 's')
            option.seconds = number("seconds", optarg, 0.01, 600);
        else if (letter == 'r')
            option.rate = number("rate", optarg, 1, 1e6);
        else if (letter == 'w')
            option.warmup = number("warmup", optarg, 0, 60);
        else
            exit(2);
    }
    if (!option.port_count)
        die("--ports is missing");
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    alarm(SLACK_SECONDS +
          (unsigned)(option.mode == IDLE ? HOLD_SECONDS : option.seconds + option.warmup));
    random_state = now_ns() | 1;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t pool_size = option.size + POOL_SPREAD;
    pool = allocate(pool_size);
    for (size_t i = 0; i < pool_size; i++)
        pool[i] = (uint8_t)(random_u64(&random_state) >> 56);
    sessions = allocate(option.sessions * sizeof *sessions);
    size_t out_size = option.size + FRAME_HEADER_MAX > 2048 ? option.size + FRAME_HEADER_MAX : 2048;
    for (size_t i = 0; i < option.sessions; i++) {
        sessions[i].out = allocate(out_size);
        sessions[i].head = allocate(HEAD_LIMIT);
    }
    if (option.mode == ECHO)
        run_echo();
    else if (option.mode == HANDSHAKES)
        run_handshakes();
    else if (option.mode == RATE)
        run_rate();
    else if (option.mode == STORM)
        run_storm();
    else
        run_idle();
    return 0;
}
