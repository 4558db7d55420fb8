//! Memory use of this process and memory of the machine, where the operating system tells.
//!
//! Each function that asks gives `None` on systems that it cannot ask.

use crate::MemorySize;

/// Most memory this process ever had resident.
pub fn peak_resident() -> Option<MemorySize> {
    #[cfg(target_os = "linux")]
    return status_field("VmHWM:");
    #[cfg(all(unix, not(target_os = "linux")))]
    return rusage_peak();
    #[cfg(not(unix))]
    None
}

/// Forgets the peak of [`peak_resident`], so that it counts from now on. Says whether the system could.
pub fn reset_peak() -> bool {
    cfg!(target_os = "linux") && std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Memory this process has resident now.
pub fn resident() -> Option<MemorySize> {
    status_field("VmRSS:")
}

/// Memory that programs can still have without swapping.
pub fn available_memory() -> Option<MemorySize> {
    proc_field("/proc/meminfo", "MemAvailable:")
}

/// Memory of the machine.
pub fn total_memory() -> Option<MemorySize> {
    proc_field("/proc/meminfo", "MemTotal:")
}

/// Room on the disk of `path`, which need not exist yet, for this user.
pub fn free_space(path: &std::path::Path) -> Option<MemorySize> {
    #[cfg(unix)]
    return path.ancestors().find_map(statvfs_free);
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Gives memory that the allocator has free back to the operating system, where the allocator would keep it: glibc keeps
/// the room of many small pieces, such as the strings of a vocabulary file, for the life of the process.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function may be called at any time; it takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn status_field(name: &str) -> Option<MemorySize> {
    proc_field("/proc/self/status", name)
}

/// Reads a line `Name:   123 kB` of a file under /proc.
fn proc_field(path: &str, name: &str) -> Option<MemorySize> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kib: u64 = line[name.len()..].trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(MemorySize::KB(kib))
}

#[cfg(unix)]
fn statvfs_free(path: &std::path::Path) -> Option<MemorySize> {
    use std::os::unix::ffi::OsStrExt;
    // The last of the folders above a relative path is the current one, which has an empty name here.
    let name = if path.as_os_str().is_empty() { b"." } else { path.as_os_str().as_bytes() };
    let name = std::ffi::CString::new(name).ok()?;
    let mut room = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` ends with a zero, and statvfs fills the struct it is given when it returns 0.
    let room = unsafe {
        if libc::statvfs(name.as_ptr(), room.as_mut_ptr()) != 0 {
            return None;
        }
        room.assume_init()
    };
    #[allow(clippy::useless_conversion, reason = "the types of the fields differ between systems")]
    let (blocks, size) = (u64::from(room.f_bavail), u64::from(room.f_frsize));
    blocks.checked_mul(size).map(MemorySize::bytes)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn rusage_peak() -> Option<MemorySize> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: getrusage fills the struct it is given when it returns 0.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    // macOS counts bytes, the BSDs count kilobytes.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    Some(MemorySize::bytes(u64::try_from(usage.ru_maxrss).ok()? * unit))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn figures_make_sense() {
        let (now, peak) = (resident().unwrap(), peak_resident().unwrap());
        assert!(now <= peak && peak < total_memory().unwrap());
        assert!(available_memory().unwrap() <= total_memory().unwrap());
    }

    #[test]
    fn disks_have_room_also_for_what_is_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        let free = free_space(dir.path()).unwrap();
        assert!(free > MemorySize::bytes(0));
        assert!(free_space(&dir.path().join("not/yet")).is_some());
        assert!(free_space(std::path::Path::new("not/yet")).is_some());
    }

    #[test]
    fn a_peak_can_be_forgotten() {
        let large = vec![1u8; 64 << 20];
        let before = peak_resident().unwrap();
        drop(std::hint::black_box(large));
        // Some containers do not allow it; then the peak stays.
        let after = if reset_peak() { MemorySize::MB(60) } else { MemorySize::MB(0) };
        assert!(peak_resident().unwrap().as_bytes() + after.as_bytes() <= before.as_bytes());
    }
}
