/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The verdict program of the kernel relay: follows the WebSocket frames of each arriving TCP segment and sends
 * the segment straight into the other socket's send queue, as long as user space allows it.
 *
 * It runs for every socket in the map `sockets`, under the lock of the socket that received the segment, so
 * that there is never more than one run for one direction at a time. A direction is one slot: the client's
 * socket has an even one and the backend's the odd one after it, so the other socket's slot is `slot ^ 1`.
 *
 * A direction has one owner. User space opens the way by setting `gate` to what `passed` is, and with it gives
 * away the scanner's state; the program closes the way by itself: a segment that it does not send on moves
 * `passed` on, and from then on the segments after it wait behind it, where TCP pushes back on their sender.
 * What it gives to user space it gives whole and unscanned: everything that needs a decision (a Close frame,
 * a frame that RFC 6455 forbids, a message over the limit, more frames than the loop may walk).
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* `make bpf` builds the program; the loader creates these maps and puts their descriptors in. */
#define MAP(name) struct name { int unused; } name SEC("maps")

MAP(slots);      /* HASH: socket cookie -> slot */
MAP(directions); /* ARRAY, mapped into user space: slot -> struct direction */
MAP(sockets);    /* SOCKMAP: slot -> socket */
MAP(notes);      /* RINGBUF: slots that want user space's attention */

/* The gate of a session that is over: nobody wants what comes now. */
#define OVER (~0ULL - 1)

/* Frames of one segment; with more of them user space scans it. */
#ifndef MAX_FRAMES
#define MAX_FRAMES 8192
#endif

/* One section for the program and its callback, so that the loader need not link. */
#define SECTION SEC("sk_skb/stream_verdict")

/* RFC 6455 section 5.2. */
#define FIN 0x80
#define OPCODE 0x0f
#define MASKED 0x80
#define LENGTH 0x7f
#define CONTINUATION 0
#define TEXT 1
#define BINARY 2
#define PING 9
#define PONG 10

struct scan {
	__u64 left;          /* payload bytes of the current frame that are still to come */
	__u64 message;       /* payload bytes of the current message so far, the current frame's all included */
	__u64 payload;       /* payload bytes seen */
	__u64 messages;      /* messages that ended */
	__u64 control;       /* payload bytes of control frames begun */
	__u64 continuations; /* frames begun, by opcode */
	__u64 texts;
	__u64 binaries;
	__u64 pings;
	__u64 pongs;
	__u8 first;          /* first byte of the current frame */
	__u8 fragmented;     /* inside a message of several frames */
	__u8 masked;         /* what the mask bit must be: MASKED or 0 */
	__u8 watched;        /* whether Pings and Pongs are for user space, which must know what came before what */
	__u8 reserved[4];
};

struct direction {
	/* Written here alone. */
	__u64 passed;     /* bytes given to user space */
	__u64 redirected; /* bytes sent on */
	__u64 segments;   /* segments sent on */
	__u64 noted;      /* the threshold for which a note was written last */
	/* Written by user space alone. */
	__u64 gate;       /* what `passed` must be for the way to be open */
	__u64 credit;     /* what `redirected` may become */
	__u64 threshold;  /* what `redirected` must reach for a note to be written, so that credit never runs out */
	__u64 limit;      /* payload bytes of a message that may not be exceeded */
	/* Written by the owner. */
	struct scan scan;
	/* The scan of the segment at hand until it is committed. */
	struct scan draft;
	__u64 allowed;    /* messages and control frames that may have begun; written by user space alone */
	/* Written here alone. */
	__u64 repeated;   /* bytes that came a second time, and were cut off */
	__u32 next;       /* sequence number of the first byte that has not come yet */
	__u32 known;      /* whether `next` is */
	__u32 rest;       /* bytes to be cut off the segment at hand; here, since the verifier follows the stack too closely */
	__u32 reserved;
};
_Static_assert(sizeof(struct direction) == 272, "user space counts on it");

/* What can be cut off a segment at a time (sk_skb_adjust_room of the kernel). */
#define MAX_CUT 4095
#define MAX_CUTS 1024

/* What is to be cut off a segment. */
struct cut {
	struct __sk_buff *skb;
	struct direction *direction;
};

/* What the walk over a segment's frames works on. */
struct walk {
	struct __sk_buff *skb;
	struct direction *direction;
	__u32 position; /* bytes of the segment that are behind */
	__u32 all;      /* whether every frame of it may go on */
};

/* Nothing of a message is left to come. */
static __always_inline void end_frame(struct scan *scan)
{
	if ((scan->first & FIN) && (scan->first & OPCODE) <= BINARY) {
		scan->messages++;
		scan->message = 0;
	}
}

#ifndef BLIND
static long step(__u64 index, struct walk *walk);
#endif
static long cut_off(__u64 index, struct cut *cut);

/*
 * Leave only the bytes of a segment that have not come before; whether that could be done. What the first one should
 * have begun with is for user space to find out. TCP queues a
 * retransmitted segment that has old bytes and new ones whole, and a segment that was read in part stays whole in
 * the queue; both leave it to the reader to skip what is old, and this is the reader. The first four bytes of the
 * control block are the sequence number of the first byte (struct tcp_skb_cb).
 */
static __always_inline int only_new(struct __sk_buff *skb, struct direction *direction)
{
	__u32 sequence = skb->cb[0], length = skb->len, old = direction->next - sequence;

	if (direction->known && old && (__s32)old > 0) {
		struct cut cut = {.skb = skb, .direction = direction};

		direction->rest = old < length ? old : length;
		direction->repeated += direction->rest;
		bpf_loop(MAX_CUTS, cut_off, &cut, 0);
		if (direction->rest)
			return 0;
		if (old >= length)
			return 1;
	}
	direction->next = sequence + length;
	if (!direction->known) {
		direction->known = 1;
		return 0;
	}
	return 1;
}

SECTION int relay(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u32 *found = bpf_map_lookup_elem(&slots, &cookie);
	struct direction *direction;
	__u32 slot, length;
	int open;

	if (!found)
		return SK_PASS;
	slot = *found;
	direction = bpf_map_lookup_elem(&directions, &slot);
	if (!direction)
		return SK_PASS;
	open = only_new(skb, direction);
	/*
	 * A bare FIN is a segment too, or what had nothing new but it. TCP has told its end already; sent on, or kept for
	 * user space behind what waits to be sent to the same socket, its want of bytes would be taken for a broken pipe.
	 */
	length = skb->len;
	if (!length)
		return SK_DROP;
	if (open && direction->passed == direction->gate && direction->redirected + length <= direction->credit) {
		struct walk walk = {.skb = skb, .direction = direction};

		direction->draft = direction->scan;
#ifndef BLIND /* what the frames cost is measured beside a program that does not look at them (bench) */
		bpf_loop(MAX_FRAMES, step, &walk, 0);
#else
		walk.all = 1;
#endif
		if (walk.all && bpf_sk_redirect_map(skb, &sockets, slot ^ 1, 0) == SK_PASS) {
			direction->scan = direction->draft;
			direction->redirected += length;
			direction->segments += 1;
			if (direction->redirected >= direction->threshold && direction->noted != direction->threshold) {
				direction->noted = direction->threshold;
				bpf_ringbuf_output(&notes, &slot, sizeof(slot), 0);
			}
			return SK_PASS;
		}
	}
	if (direction->gate == OVER)
		return SK_DROP;
	/* It waits for user space, and whatever comes after it waits behind it. */
	direction->passed += length;
	if (direction->passed - length == direction->gate)
		bpf_ringbuf_output(&notes, &slot, sizeof(slot), 0);
	return SK_PASS;
}

/* One step of the cutting; 1 ends it. */
SECTION static long cut_off(__u64 index, struct cut *cut)
{
	__u32 rest = cut->direction->rest, size = rest < MAX_CUT ? rest : MAX_CUT;

	if (!size || bpf_skb_adjust_room(cut->skb, -(__s32)size, 0, 0))
		return 1;
	cut->direction->rest = rest - size;
	return 0;
}

#ifndef BLIND
/* Branches, since only a privileged program may add what it has read to a pointer. */
static __always_inline void count_data(struct scan *scan, __u8 opcode)
{
	if (opcode == CONTINUATION)
		scan->continuations++;
	else if (opcode == TEXT)
		scan->texts++;
	else
		scan->binaries++;
}

/* One step of the walk, over a frame or what there is of it; 1 ends it. Works on the draft, so nothing is committed. */
SECTION static long step(__u64 index, struct walk *walk)
{
	struct __sk_buff *skb = walk->skb;
	struct scan *scan = &walk->direction->draft;
	__u32 position = walk->position, length = skb->len, need = 2;
	__u8 header[4], opcode;
	__u64 size;

	if (position >= length) {
		walk->all = 1;
		return 1;
	}
	if (scan->left) {
		__u32 rest = length - position;

		if (scan->left > rest) {
			scan->left -= rest;
			scan->payload += rest;
			walk->all = 1;
			return 1;
		}
		walk->position = position + scan->left;
		scan->payload += scan->left;
		scan->left = 0;
		end_frame(scan);
		return 0;
	}

	/* A header that is not whole, here or before, is for user space: it is rare, and a few bytes. */
	if (bpf_skb_load_bytes(skb, position, header, 2))
		return 1;
	opcode = header[0] & OPCODE;
	size = header[1] & LENGTH;
	if ((header[1] & MASKED) != scan->masked)
		return 1;
	if (size == 126) {
		if (bpf_skb_load_bytes(skb, position + 2, header + 2, 2))
			return 1;
		size = (__u64)header[2] << 8 | header[3];
		if (size < 126)
			return 1;
		need = 4;
	} else if (size == 127) {
		if (bpf_skb_load_bytes(skb, position + 2, &size, 8))
			return 1;
		size = bpf_be64_to_cpu(size);
		if (size >> 63 || size < 1 << 16)
			return 1;
		need = 10;
	}
	if (scan->masked)
		need += 4;
	if (length - position < need)
		return 1;

	if (opcode != CONTINUATION &&
	    scan->texts + scan->binaries + scan->pings + scan->pongs >= walk->direction->allowed)
		return 1;
	if (opcode <= BINARY) {
		if ((opcode == CONTINUATION) != scan->fragmented)
			return 1;
		scan->message += size;
		if (scan->message > walk->direction->limit)
			return 1;
		scan->fragmented = !(header[0] & FIN);
		count_data(scan, opcode);
	} else if ((opcode == PING || opcode == PONG) && !scan->watched && (header[0] & FIN) && size <= 125) {
		scan->control += size;
		if (opcode == PING)
			scan->pings++;
		else
			scan->pongs++;
	} else {
		return 1;
	}
	scan->first = header[0];
	scan->left = size;
	walk->position = position + need;
	if (!size)
		end_frame(scan);
	return 0;
}
#endif /* BLIND */

char _license[] SEC("license") = "Dual MIT/GPL";
