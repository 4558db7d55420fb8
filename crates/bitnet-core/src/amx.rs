//! Whether AMX, the matrix extension of Intel's server processors, can be used for int8.
//!
//! Its registers are so large that Linux saves them only for processes that asked for it. The intrinsics that would tell
//! are not stable yet, so the processor is asked directly.
//!
//! Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter "Programming with Intel AMX";
//! Linux, Documentation/arch/x86/xstate.rst.

use std::sync::OnceLock;

/// Whether the processor has AMX for int8 and the system lets this process use it. Asks the system once.
pub fn is_available() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| processor_has_it() && permitted())
}

fn processor_has_it() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    /// Bits of XCR0: the configuration and the data of tiles.
    const TILE_STATE: u64 = 0b11 << 17;
    /// Bits of leaf 7, register EDX: AMX-TILE and AMX-INT8.
    const AMX: u32 = 0b11 << 24;

    #[target_feature(enable = "xsave")]
    fn enabled_state() -> u64 {
        // SAFETY: the processor has XSAVE, which the system has enabled.
        unsafe { _xgetbv(0) }
    }

    if !is_x86_feature_detected!("xsave") || __cpuid(0).eax < 7 {
        return false;
    }
    // SAFETY: the processor has XSAVE.
    let state = unsafe { enabled_state() };
    state & TILE_STATE == TILE_STATE && __cpuid_count(7, 0).edx & AMX == AMX
}

/// Asks Linux for the right to use the large state; it holds for all threads of the process.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Other systems need no permission, but whether they keep tiles when they switch threads was not tried.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}
