//! A wire that hidden entropy and the machine's clock trip over.
//!
//! This file defines the C functions by which a process looks at its clock and draws entropy. The linker takes them for
//! those of the C library, so every look of the standard library and of the crates linked here passes through them: they
//! do what they always did, and, while the calling thread runs something of a node, trip the wire. (tokio's own scheduler
//! looks at the clock for its statistics, between the nodes' turns.) Cryptography's own entropy is replaced while a world
//! lives; a draw outside of any node trips the wire too. What the wire does not see: code that makes the system calls
//! itself, without the C library.
#![expect(
    unsafe_code,
    reason = "functions of the C library are replaced, with the same contract"
)]

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;

use libc::{c_int, c_uint, c_void, clockid_t, size_t, ssize_t, timespec, timeval};
use pqcnet_actor::hosted;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static TRIPPED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// While it lives, the wire is armed on this thread.
pub(super) struct Armed {
    before: bool,
}

/// Arms the wire.
pub(super) fn arm() -> Armed {
    Armed {
        before: ARMED.replace(true),
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        ARMED.set(self.before);
    }
}

/// Runs `f` as something outside of the world: a progress bar, a measurement.
pub fn outside<T>(f: impl FnOnce() -> T) -> T {
    let _armed_again = Armed {
        before: ARMED.replace(false),
    };
    f()
}

/// Lines of a backtrace that are told: two a call.
const TRACED: usize = 40;

/// Trips the wire, if it is armed; the first to trip is remembered, with who ran.
pub(super) fn trip(what: &str) {
    if !ARMED.replace(false) {
        return;
    }
    let who = hosted::running();
    let who = who.as_deref().unwrap_or("nobody of the world");
    let trace = std::backtrace::Backtrace::force_capture();
    let trace = trace.to_string();
    let trace: Vec<&str> = trace.lines().take(TRACED).collect();
    let trace = trace.join("\n");
    TRIPPED.with_borrow_mut(|tripped| {
        tripped.get_or_insert_with(|| format!("{what}, while {who} ran:\n{trace}"));
    });
    ARMED.set(true);
}

/// What tripped the wire since the last call.
pub(super) fn take() -> Option<String> {
    TRIPPED.take()
}

fn looked(what: &str) {
    // The thread may be ending.
    let armed = ARMED.try_with(Cell::get).unwrap_or(false);
    if armed && hosted::running().is_some() {
        trip(what);
    }
}

/// The C library's function of this name, which the one here stands before.
fn next(name: &'static std::ffi::CStr) -> usize {
    // SAFETY: dlsym takes any name; RTLD_NEXT asks for the definition after this one.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    found as usize
}

type ClockGettime = unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int;

/// The C library's clock, which asks the kernel's page and makes no system call.
fn real_clock() -> Option<ClockGettime> {
    static NEXT: OnceLock<usize> = OnceLock::new();
    let found = *NEXT.get_or_init(|| next(c"clock_gettime"));
    // SAFETY: the C library's function of this name has this signature; an Option of a function pointer is null or one.
    unsafe { std::mem::transmute::<usize, Option<ClockGettime>>(found) }
}

/// The C library's function, by the system call behind it.
///
/// # Safety
/// As clock_gettime(2): `at` points to a timespec.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(id: clockid_t, at: *mut timespec) -> c_int {
    looked("the machine's clock was read");
    match real_clock() {
        // SAFETY: the caller's contract is the C library's.
        Some(real) => unsafe { real(id, at) },
        None => -1,
    }
}

/// The C library's function, by the system call behind it.
///
/// # Safety
/// As gettimeofday(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(at: *mut timeval, zone: *mut c_void) -> c_int {
    looked("the machine's clock was read");
    // SAFETY: the caller's contract is the system call's.
    unsafe { libc::syscall(libc::SYS_gettimeofday, at, zone) as c_int }
}

/// The C library's function, by the system call behind it.
///
/// # Safety
/// As getrandom(2): `out` has room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(out: *mut c_void, len: size_t, flags: c_uint) -> ssize_t {
    looked("the machine's entropy was drawn");
    // SAFETY: the caller's contract is the system call's.
    unsafe { libc::syscall(libc::SYS_getrandom, out, len, flags) as ssize_t }
}

/// The C library's function, by the system call behind it.
///
/// # Safety
/// As getentropy(3): `out` has room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getentropy(out: *mut c_void, len: size_t) -> c_int {
    if len > 256 {
        return -1;
    }
    // SAFETY: the caller's contract is this function's.
    let got = unsafe { getrandom(out, len, 0) };
    if usize::try_from(got) == Ok(len) {
        0
    } else {
        -1
    }
}
