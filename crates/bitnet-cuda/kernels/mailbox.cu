// Steps of decoding whose inputs and results go through memory that the host shares with the device: a graph begins with
// `fetch`, ends with `deliver`, and the host only looks at a word in between.
#pragma once
#include "device.cuh"

// The head of the mailbox, a line of the caches for each word.
struct Mail {
    u64 posted, line_0[7];    // by the host: the number of the step whose inputs are there
    u64 delivered, line_1[7]; // by the device: the number of the last step whose results are there
};

struct FetchArgs {
    const Mail *mail;
    const Words4 *inputs; // in the mailbox
    Words4 *to;
    u64 *number;          // of the step, for `deliver`
    u32 pieces;           // of 16 bytes
    u32 pad;
};

// Inputs were there before the graph was launched. `embed`, which comes next, waits for the end of this. Grid: one block.
KERNEL(512, fetch, FetchArgs) {
    launch_next();
    await_previous();
    if (thread_x() == 0) *a.number = load_host(&a.mail->posted);
    UNROLL_4 for (u32 i = thread_x(); i < a.pieces; i += threads()) a.to[i] = load4_host(a.inputs + i);
}

struct DeliverArgs {
    Mail *mail;
    u32 *results;     // in the mailbox: the flags, nothing, and for each row what `found` has of it, with its own room
    const u32 *flags;
    const u32 *found; // [row][2 + 2 * capacity]
    const u64 *number;
    u32 rows, capacity, room, pad;
};

// A warp has a row. Of a row with more than there is room for, the count tells so. Grid: one block.
KERNEL(512, deliver, DeliverArgs) {
    await_previous();
    const u32 warp = thread_x() / 32, lane = thread_x() % 32;
    for (u32 row = warp; row < a.rows; row += threads() / 32) {
        const u32 *from = a.found + (u64)row * (2 + 2 * a.capacity);
        u32 *to = a.results + 2 + (u64)row * (2 + 2 * a.room);
        const u32 count = from[0], words = 2 + 2 * (count <= a.room ? count : 0);
        for (u32 i = lane; i < words; i += 32) to[i] = from[i];
    }
    if (thread_x() == 0) a.results[0] = a.flags[0];
    sync_block();
    if (thread_x() == 0) store_release_host(&a.mail->delivered, *a.number);
}
