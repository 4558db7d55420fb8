// Steps of decoding whose inputs and results go through memory of the host, while both sides run.
//
// Steps are numbered in the order in which their graphs are launched. A graph begins with `fetch`, which waits until the host
// has posted its number, and ends with `deliver`. A step that shall not be after all, or whose inputs do not come, copies no
// inputs and delivers nothing: its kernels repeat the step before with what still lies in the scratch buffer, and so write what
// is there already. That is right since nothing can have been queued in between; `src/queue.rs` sees to it.
#pragma once
#include "device.cuh"

// The head of the mailbox, one line of the caches for each word.
struct Mail {
    u64 posted, line_0[7];    // by the host: twice the number of a step whose inputs are there; one more to skip the step
    u64 delivered, line_1[7]; // by the device: a step whose results are there
    u64 gave_up, line_2[7];   // by the device: a step that waited too long for its inputs
};

// What kernels of the device keep for themselves.
struct Turn {
    u64 number; // of the last step that began
    u32 fresh;  // whether it got inputs
    u32 pad;
};

struct FetchArgs {
    Mail *mail;
    const Words4 *inputs; // in the mailbox
    Words4 *to;
    Turn *turn;
    u32 pieces;           // of 16 bytes
    u32 patience;         // nanoseconds
};

// `embed`, which comes next, waits for the end of this. Grid: one block.
KERNEL(512, fetch, FetchArgs) {
    SHARED u32 fresh;
    launch_next();
    await_previous();
    if (thread_x() == 0) {
        const u64 number = a.turn->number + 1, begin = nanoseconds();
        u64 posted = load_acquire_host(&a.mail->posted);
        while (posted < 2 * number && nanoseconds() - begin < a.patience) posted = load_acquire_host(&a.mail->posted);
        fresh = posted == 2 * number;
        a.turn->number = number;
        a.turn->fresh = fresh;
        if (posted < 2 * number) store_release_host(&a.mail->gave_up, number);
    }
    sync_block();
    if (fresh == 0) return;
    UNROLL_4 for (u32 i = thread_x(); i < a.pieces; i += threads()) a.to[i] = load4_host(a.inputs + i);
}

struct DeliverArgs {
    Mail *mail;
    u32 *results;     // in the mailbox: the flags, nothing, and for each row what `found` has of it, with its own room
    const u32 *flags;
    const u32 *found; // [row][2 + 2 * capacity]
    const Turn *turn;
    u32 rows, capacity, room, pad;
};

// A warp has a row. Of a row with more than there is room for, the count tells so. Grid: one block.
KERNEL(512, deliver, DeliverArgs) {
    await_previous();
    if (a.turn->fresh == 0) return;
    const u32 warp = thread_x() / 32, lane = thread_x() % 32;
    for (u32 row = warp; row < a.rows; row += threads() / 32) {
        const u32 *from = a.found + (u64)row * (2 + 2 * a.capacity);
        u32 *to = a.results + 2 + (u64)row * (2 + 2 * a.room);
        const u32 count = from[0], words = 2 + 2 * (count <= a.room ? count : 0);
        for (u32 i = lane; i < words; i += 32) to[i] = from[i];
    }
    if (thread_x() == 0) a.results[0] = a.flags[0];
    sync_block();
    if (thread_x() == 0) store_release_host(&a.mail->delivered, a.turn->number);
}
