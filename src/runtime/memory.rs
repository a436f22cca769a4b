//! How the process uses memory beside what it allocates.

use std::ffi::{c_int, c_void};
use std::sync::{Mutex, PoisonError};

/// How many [`SmallPages`] there are.
static HOLDERS: Mutex<usize> = Mutex::new(0);

/// While one is held, new memory of the process comes in small pages. The allocator asks for huge ones, which make all cheaper as a rule
/// (an eighth of a PUT). But the kernel clears all of such a page when it is first touched: on a virtual machine that takes a millisecond,
/// and while a snapshot of a large state is made they come one after the other, so that writes waited for 16 ms (p99) instead of 4.
/// A kernel that refuses leaves all as it was; a program that a check starts meanwhile keeps small pages.
pub struct SmallPages(());

impl SmallPages {
    /// From now on, until it is dropped.
    pub fn hold() -> SmallPages {
        SmallPages::count(|holders| *holders += 1);
        SmallPages(())
    }

    fn count(change: impl FnOnce(&mut usize)) {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut holders);
        let disabled = libc::c_ulong::from(*holders > 0);
        // SAFETY: takes no pointer.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disabled, 0, 0, 0) };
    }
}

impl Drop for SmallPages {
    fn drop(&mut self) {
        SmallPages::count(|holders| *holders -= 1);
    }
}

/// Lets go of the parts of the program's file that are in memory: most of them only the start has used. Those that are used again are
/// found in the kernel's cache of files. On a host of many agents' neighbours each megabyte counts.
pub fn let_go_of_code() {
    // SAFETY: the callback does as the call demands, and there is nothing that it could take with it.
    unsafe { libc::dl_iterate_phdr(Some(let_go_of_program), std::ptr::null_mut()) };
}

/// Called for the program itself first; then the walk ends.
unsafe extern "C" fn let_go_of_program(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    const PAGE: usize = 4096;
    // SAFETY: the linker gives a live entry, whose headers are an array of that length.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    for header in headers {
        let is_unchanged = header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
        let begin = (base + header.p_vaddr as usize).next_multiple_of(PAGE);
        let end = (base + header.p_vaddr as usize + header.p_memsz as usize) / PAGE * PAGE;
        if is_unchanged && begin < end {
            // SAFETY: these whole pages are mapped from the program's file and never written: whoever touches one again finds the same.
            unsafe { libc::madvise(begin as *mut c_void, end - begin, libc::MADV_DONTNEED) };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONSTANT: [u8; 16384] = [7; 16384];

    fn file_pages() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("there is one");
        let line = status.lines().find(|line| line.starts_with("RssFile:")).expect("it says so");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    #[test]
    fn small_pages_last_as_long_as_anybody_wants_them() {
        // SAFETY: takes no pointer.
        let disabled = || unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) };
        let (one, other) = (SmallPages::hold(), SmallPages::hold());
        drop(one);
        assert_eq!(disabled(), 1);
        drop(other);
        // Another test may take a snapshot.
        let holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(disabled() == 1, *holders > 0);
    }

    #[test]
    fn code_and_constants_are_as_they_were() {
        let before =
            (file_pages(), std::hint::black_box(&CONSTANT).iter().map(|b| u64::from(*b)).sum::<u64>());
        let_go_of_code();
        let during = file_pages();
        assert!(during < before.0, "{during} KiB of {} KiB", before.0);
        assert_eq!(std::hint::black_box(&CONSTANT).iter().map(|b| u64::from(*b)).sum::<u64>(), before.1);
    }
}
