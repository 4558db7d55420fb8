//! AMX: registers of sixteen rows of 64 bytes, *tiles*, and one instruction that multiplies two of them: 16,384 int8
//! multiply-adds in sixteen cycles, eight times what two `vpdpbusd` units do.
//!
//! The intrinsics are not stable yet, so the instructions stand in assembly. The compiler knows nothing of tile registers
//! and never uses them; what they hold is carried from one block of assembly to the next only by [`Tiles`].
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter "Programming with Intel AMX".

use std::arch::asm;

/// Bytes of a tile.
pub(crate) const TILE: usize = 1024;
/// Bytes of a row of a tile, at which rows follow one another here.
const ROW: usize = 64;

/// The shapes of the eight tiles, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row of each tile.
    columns: [u16; 16],
    rows: [u8; 16],
}

/// Sums of four tiles at `c`, set or added to: between loading and storing them, `steps` times the given lines, which may
/// change the pointers named.
macro_rules! products {
    ([$($line:literal,)*], [$($pointer:ident),*], $steps:ident, $c:ident, $first:ident) => {
        asm!(
            "test {first:e}, {first:e}",
            "jz 3f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 2f",
            "3:",
            "tileloadd tmm0, [{c} + {row}]",
            "tileloadd tmm1, [{c} + {row} + 1024]",
            "tileloadd tmm2, [{c} + {row} + 2048]",
            "tileloadd tmm3, [{c} + {row} + 3072]",
            "2:",
            $($line,)*
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 1024], tmm1",
            "tilestored [{c} + {row} + 2048], tmm2",
            "tilestored [{c} + {row} + 3072], tmm3",
            $($pointer = inout(reg) $pointer => _,)*
            steps = inout(reg) $steps => _,
            c = in(reg) $c,
            row = in(reg) ROW,
            first = in(reg) u32::from($first),
            options(nostack)
        )
    };
}

/// The tile registers of this thread, configured while this value lives.
///
/// Tiles 0 to 3 are sums, `[rows][16]` of 32 bits. Left operands have `rows` rows of 64 columns, right operands sixteen
/// rows, of four columns of sixteen outputs each.
pub(crate) struct Tiles(());

impl Tiles {
    /// Configures the tiles for left operands of so many rows, at most sixteen, in tile 4 (and 5, if `pairs`).
    ///
    /// # Safety
    /// [`bitnet_core::amx::is_available`] is true; this thread has no other [`Tiles`].
    pub(crate) unsafe fn new(rows: usize) -> Self {
        assert!((1..=16).contains(&rows), "rows of a tile");
        let rows = rows as u8;
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], columns: [0; 16], rows: [0; 16] };
        for tile in 0..8 {
            config.columns[tile] = ROW as u16;
            // Sums and left operands; the others are right operands.
            config.rows[tile] = if tile < 5 || rows == 16 { rows } else { 16 };
        }
        // SAFETY: the processor has AMX, the configuration is valid and 64 bytes long.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config, options(readonly, nostack, preserves_flags));
        }
        Self(())
    }

    /// Two tiles of rows, at `a` and `a2`, times two of outputs, which lie side by side at `b`, over `steps` times 64
    /// columns. Sums are `[2 rows][2 outputs]` tiles at `c`, which are set if `first`, else added to.
    ///
    /// # Safety
    /// `steps` is not 0, and there are as many tiles at `a` and `a2`, twice as many at `b`, and four at `c`. The tiles are
    /// configured for sixteen rows.
    #[inline(always)]
    pub(crate) unsafe fn two_by_two(
        &self,
        a: *const i8,
        a2: *const i8,
        b: *const u8,
        steps: usize,
        c: *mut i32,
        first: bool,
    ) {
        // SAFETY: promised by the caller.
        unsafe {
            products!(
                [
                    "tileloadd tmm6, [{b} + {row}]",
                    "tileloadd tmm4, [{a} + {row}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b} + {row} + 1024]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{a2} + {row}]",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tdpbssd tmm3, tmm5, tmm7",
                    "add {b}, 2048",
                    "add {a}, 1024",
                    "add {a2}, 1024",
                ],
                [a, a2, b],
                steps,
                c,
                first
            );
        }
    }

    /// One tile of rows at `a` times four of outputs, of which two lie side by side at `b` and two at `b2`, over `steps`
    /// times 64 columns. Sums are four tiles at `c`, which are set if `first`, else added to.
    ///
    /// # Safety
    /// `steps` is not 0, and there are as many tiles at `a`, two times as many at `b` and at `b2`, and four at `c`.
    #[inline(always)]
    pub(crate) unsafe fn one_by_four(
        &self,
        a: *const i8,
        b: *const u8,
        b2: *const u8,
        steps: usize,
        c: *mut i32,
        first: bool,
    ) {
        // SAFETY: promised by the caller.
        unsafe {
            products!(
                [
                    "tileloadd tmm4, [{a} + {row}]",
                    "tileloadd tmm5, [{b} + {row}]",
                    "tdpbssd tmm0, tmm4, tmm5",
                    "tileloadd tmm6, [{b} + {row} + 1024]",
                    "tdpbssd tmm1, tmm4, tmm6",
                    "tileloadd tmm7, [{b2} + {row}]",
                    "tdpbssd tmm2, tmm4, tmm7",
                    "tileloadd tmm5, [{b2} + {row} + 1024]",
                    "tdpbssd tmm3, tmm4, tmm5",
                    "add {a}, 1024",
                    "add {b}, 2048",
                    "add {b2}, 2048",
                ],
                [a, b, b2],
                steps,
                c,
                first
            );
        }
    }

    /// One tile of rows at `a` times a panel of 32 outputs at `b`, `[steps][16 quads][32 outputs][4 columns]`, over `steps`
    /// times 64 columns; memory is asked for `ahead` bytes ahead of `b`. `c` gets four tiles: the sums of the first and the
    /// second sixteen outputs over steps of even numbers, then those over the other steps.
    ///
    /// # Safety
    /// `steps` is not 0, and there are as many tiles at `a`, twice as many at `b`, and four at `c`.
    #[inline(always)]
    pub(crate) unsafe fn one_by_panel(
        &self,
        a: *const i8,
        b: *const i8,
        steps: usize,
        ahead: usize,
        c: *mut i32,
    ) {
        // SAFETY: promised by the caller; a prefetch past the end does nothing.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm5, [{b} + 2*{row}]",
                "tdpbssd tmm0, tmm4, tmm5",
                "tileloadd tmm6, [{b} + 2*{row} + 64]",
                "tdpbssd tmm1, tmm4, tmm6",
                // A panel's next step is 2 KiB.
                ".irp line, 0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960",
                "prefetcht0 [{b} + {ahead} + \\line]",
                "prefetcht0 [{b} + {ahead} + 1024 + \\line]",
                ".endr",
                "add {a}, 1024",
                "add {b}, 2048",
                "dec {steps}",
                "jz 3f",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm7, [{b} + 2*{row}]",
                "tdpbssd tmm2, tmm4, tmm7",
                "tileloadd tmm6, [{b} + 2*{row} + 64]",
                "tdpbssd tmm3, tmm4, tmm6",
                ".irp line, 0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960",
                "prefetcht0 [{b} + {ahead} + \\line]",
                "prefetcht0 [{b} + {ahead} + 1024 + \\line]",
                ".endr",
                "add {a}, 1024",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 2b",
                "3:",
                "tilestored [{c} + {row}], tmm0",
                "tilestored [{c} + {row} + 1024], tmm1",
                "tilestored [{c} + {row} + 2048], tmm2",
                "tilestored [{c} + {row} + 3072], tmm3",
                a = inout(reg) a => _,
                b = inout(reg) b => _,
                steps = inout(reg) steps => _,
                c = in(reg) c,
                row = in(reg) ROW,
                ahead = in(reg) ahead,
                options(nostack)
            );
        }
    }
}

/// Products of one [`multiply_registers`] turn.
pub(crate) const TURN: usize = 12;
/// int8 multiply-adds of one product of whole tiles.
pub(crate) const MACS: usize = 16 * 16 * 64;

/// So many turns of products between registers, to measure what the multiplier can do.
///
/// # Safety
/// [`bitnet_core::amx::is_available`] is true.
pub(crate) unsafe fn multiply_registers(turns: u32) {
    if turns == 0 {
        return;
    }
    // SAFETY: promised by the caller; nothing but tile registers changes.
    unsafe {
        let _tiles = Tiles::new(16);
        asm!(
            "tilezero tmm4",
            "tilezero tmm5",
            "tilezero tmm6",
            "tilezero tmm7",
            "2:",
            "tdpbssd tmm0, tmm4, tmm6",
            "tdpbssd tmm1, tmm4, tmm7",
            "tdpbssd tmm2, tmm5, tmm6",
            "tdpbssd tmm3, tmm5, tmm7",
            "tdpbssd tmm0, tmm4, tmm6",
            "tdpbssd tmm1, tmm4, tmm7",
            "tdpbssd tmm2, tmm5, tmm6",
            "tdpbssd tmm3, tmm5, tmm7",
            "tdpbssd tmm0, tmm4, tmm6",
            "tdpbssd tmm1, tmm4, tmm7",
            "tdpbssd tmm2, tmm5, tmm6",
            "tdpbssd tmm3, tmm5, tmm7",
            "dec {turns:e}",
            "jnz 2b",
            turns = inout(reg) turns => _,
            options(nomem, nostack)
        );
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the processor has AMX, or there would be no such value.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}
