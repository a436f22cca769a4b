//! How the process uses memory beside what it allocates.

use std::ffi::{c_int, c_void};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A program whose own memory is larger than this is allowed huge pages. An agent at rest, in a pool of a thousand too, has a third of it;
/// one that has work to do is past it within seconds.
const SMALL_MAX: u64 = 16 << 20;
/// How often it is looked whether it has become that.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The kernel maps what is near a page that is needed, too: up to 64 KiB in one of its areas. Of code that is used here and there, two
/// thirds of that are for nothing. Areas of this length take as many bytes as are worth it.
const PIECE: usize = 16 << 10;
const PAGE: usize = 4096;

static REASONS: Mutex<Reasons> = Mutex::new(Reasons { holders: 0, has_grown: false });

/// Why pages are to be small.
struct Reasons {
    /// How many [`SmallPages`] there are.
    holders: usize,
    /// The program has been larger than [`SMALL_MAX`].
    has_grown: bool,
}

/// Runs before anything is allocated: of the allocator's first huge page, the program would use a tenth.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGINNING: extern "C" fn() = begin_small;

extern "C" fn begin_small() {
    disable_huge_pages(true);
}

fn disable_huge_pages(disable: bool) {
    // SAFETY: takes no pointer.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, libc::c_ulong::from(disable), 0, 0, 0) };
}

fn reconsider(change: impl FnOnce(&mut Reasons)) {
    let mut reasons = REASONS.lock().unwrap_or_else(PoisonError::into_inner);
    change(&mut reasons);
    disable_huge_pages(reasons.holders > 0 || !reasons.has_grown);
}

/// While one is held, new memory of the process comes in small pages, as it does from the start until the process has grown. The allocator asks for huge ones, which make all cheaper as a rule
/// (an eighth of a PUT). But a program that holds little takes many times as much of them as it needs. And the kernel clears all of such a
/// page when it is first touched: on a virtual machine that takes a millisecond, and while a snapshot of a large state is made they come
/// one after the other, so that writes waited for 16 ms (p99) instead of 4.
/// A kernel that refuses leaves all as it was; a program that a check starts meanwhile keeps small pages.
pub struct SmallPages(());

impl SmallPages {
    /// From now on, until it is dropped.
    pub fn hold() -> SmallPages {
        reconsider(|reasons| reasons.holders += 1);
        SmallPages(())
    }
}

impl Drop for SmallPages {
    fn drop(&mut self) {
        reconsider(|reasons| reasons.holders -= 1);
    }
}

/// Watches whether the program has grown so large that huge pages are good for it.
#[derive(Default)]
pub(super) struct Growth {
    has_grown: bool,
    looked: Option<Instant>,
}

impl Growth {
    /// To be called often.
    pub(super) fn look(&mut self, now: Instant) {
        let is_early = |looked| now.saturating_duration_since(looked) < LOOK_EVERY;
        if self.has_grown || self.looked.is_some_and(is_early) {
            return;
        }
        self.looked = Some(now);
        self.has_grown = own_bytes() > SMALL_MAX;
        if self.has_grown {
            reconsider(|reasons| reasons.has_grown = true);
        }
    }
}

/// What of this process's memory is no file's; 0 if the kernel does not say.
fn own_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or(0) << 10
}

/// Lets go of the parts of the program's and its libraries' files that are in memory: most of them only the start has used. Those that are
/// used again are found in the kernel's cache of files, in small pieces. On a host of many agents' neighbours each megabyte counts.
pub fn let_go_of_code() {
    // SAFETY: the callback does as the call demands, and there is nothing that it could take with it.
    unsafe { libc::dl_iterate_phdr(Some(let_go_of_object), std::ptr::null_mut()) };
}

/// Called for the program and each of its libraries.
unsafe extern "C" fn let_go_of_object(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the linker gives a live entry, whose headers are an array of that length and whose name is a C string.
    let (base, headers, name) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
        (info.dlpi_addr as usize, headers, std::ffi::CStr::from_ptr(info.dlpi_name))
    };
    // The program has no name here, a library a path. What has another one is the kernel's and no file.
    if !name.is_empty() && !name.to_bytes().starts_with(b"/") {
        return 0;
    }
    for header in headers {
        let is_unchanged = header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
        let begin = (base + header.p_vaddr as usize).next_multiple_of(PAGE);
        let end = (base + header.p_vaddr as usize + header.p_memsz as usize) / PAGE * PAGE;
        if is_unchanged && begin < end {
            // SAFETY: these whole pages are mapped from a file and never written: whoever touches one again finds the same.
            unsafe { libc::madvise(begin as *mut c_void, end - begin, libc::MADV_DONTNEED) };
            part(begin, end);
        }
    }
    0
}

/// Has the kernel keep a range as many areas: two that differ in anything are never one. They differ in what a core dump would hold of
/// them, and a core dump holds nothing of either.
fn part(begin: usize, end: usize) {
    let mut from = begin.next_multiple_of(2 * PIECE);
    while from + PIECE <= end {
        // SAFETY: a whole number of pages that are mapped; what is in them stays.
        unsafe { libc::madvise(from as *mut c_void, PIECE, libc::MADV_DONTDUMP) };
        from += 2 * PIECE;
    }
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
        let reasons = REASONS.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(disabled() == 1, reasons.holders > 0 || !reasons.has_grown);
    }

    #[test]
    fn a_program_that_has_grown_is_allowed_huge_pages() {
        let (now, mut growth) = (Instant::now(), Growth::default());
        let grown = std::hint::black_box(vec![1u8; SMALL_MAX as usize + (1 << 20)]);
        growth.look(now);
        assert!(growth.has_grown && REASONS.lock().unwrap_or_else(PoisonError::into_inner).has_grown);
        drop(grown);
        let mut early = Growth { has_grown: false, looked: Some(now) };
        early.look(now + LOOK_EVERY / 2);
        assert_eq!(early.looked, Some(now), "it was looked at just now");
    }

    /// Areas of this program's code.
    fn areas() -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("there is one");
        let program = std::env::current_exe().expect("it runs");
        let program = program.to_str().expect("a plain path");
        maps.lines().filter(|line| line.contains(" r-xp ") && line.ends_with(program)).count()
    }

    #[test]
    fn code_and_constants_are_as_they_were() {
        let before =
            (file_pages(), std::hint::black_box(&CONSTANT).iter().map(|b| u64::from(*b)).sum::<u64>());
        let_go_of_code();
        let during = file_pages();
        assert!(during < before.0, "{during} KiB of {} KiB", before.0);
        let parted = areas();
        assert!(parted > 100, "{parted} areas");
        let_go_of_code();
        assert_eq!(areas(), parted, "the same again");
        assert_eq!(std::hint::black_box(&CONSTANT).iter().map(|b| u64::from(*b)).sum::<u64>(), before.1);
    }
}
