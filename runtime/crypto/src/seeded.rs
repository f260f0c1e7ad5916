//! Seeded randomness for one thread: test vectors and the simulator.
//!
//! liboqs draws hidden entropy inside encapsulation, signing and ML-DSA key generation, and [`crate::random`] draws from
//! the operating system. While a [`Seeded`] guard lives, both draw from its stream instead, **on this thread only**;
//! other threads keep the system's randomness. The hook into liboqs is process-wide, so it is installed once, at the
//! first guard, and passes every other thread on to the system.
//!
//! # Who may enable the feature
//! `[dev-dependencies]` of a crate, and the simulator. Under resolver 3 a dev-dependency's features reach a normal build
//! of the same crate only when tests, benches or examples are built by the same cargo command, so
//! `cargo build --bin …` never links this. Where they do meet (`cargo test --workspace` also builds the binaries that
//! tests start), the code is present but inert: nothing outside a test ever creates a guard.

use std::cell::RefCell;
use std::marker::PhantomData;

use shake::{ExtendableOutput as _, Shake256, Shake256Reader, Update as _, XofReader as _};

thread_local! {
    static STREAM: RefCell<Option<Stream>> = const { RefCell::new(None) };
}

enum Stream {
    Expanded(Box<Shake256Reader>),
    Literal {
        bytes: Vec<u8>,
        next: usize,
        overdrawn: bool,
    },
    Source(fn(&mut [u8])),
}

/// While it lives, this thread's randomness is a stream. Dropping it gives the system's randomness back.
#[must_use = "randomness is seeded only while the guard lives"]
pub struct Seeded(PhantomData<*const ()>); // not Send: it speaks for the thread that made it

/// Draws everything on this thread from SHAKE256 over `seed`.
pub fn from_seed(seed: &[u8]) -> Seeded {
    let mut shake = Shake256::default();
    shake.update(b"pqcnet/seeded/1");
    shake.update(seed);
    install(Stream::Expanded(Box::new(shake.finalize_xof())))
}

/// Draws exactly `bytes`, in order; a vector's random input.
///
/// # Panics
/// When the guard drops, if more was drawn: the code under test then takes more randomness than its specification says.
/// (The draw itself may come from C, which a panic must not cross.)
pub fn from_bytes(bytes: &[u8]) -> Seeded {
    install(Stream::Literal {
        bytes: bytes.to_vec(),
        next: 0,
        overdrawn: false,
    })
}

/// Draws everything on this thread from `source`, which fills what it is given.
pub fn from_source(source: fn(&mut [u8])) -> Seeded {
    install(Stream::Source(source))
}

fn install(stream: Stream) -> Seeded {
    crate::engine::replace_randomness(crate::random::fill);
    STREAM.with_borrow_mut(|slot| {
        assert!(slot.is_none(), "this thread is already seeded");
        *slot = Some(stream);
    });
    Seeded(PhantomData)
}

impl Drop for Seeded {
    fn drop(&mut self) {
        let stream = STREAM.with_borrow_mut(Option::take);
        let overdrawn = matches!(
            stream,
            Some(Stream::Literal {
                overdrawn: true,
                ..
            })
        );
        assert!(
            !overdrawn || std::thread::panicking(),
            "more randomness was drawn than given"
        );
    }
}

/// True if a guard lives on this thread and `out` was filled from it.
pub(crate) fn fill_from_this_thread(out: &mut [u8]) -> bool {
    let source = STREAM.with_borrow(|slot| match slot {
        Some(Stream::Source(source)) => Some(*source),
        Some(Stream::Expanded(_) | Stream::Literal { .. }) | None => None,
    });
    if let Some(source) = source {
        source(out);
        return true;
    }
    STREAM.with_borrow_mut(|slot| match slot {
        None | Some(Stream::Source(_)) => false,
        Some(Stream::Expanded(reader)) => {
            reader.read(out);
            true
        }
        Some(Stream::Literal {
            bytes,
            next,
            overdrawn,
        }) => {
            let end = *next + out.len();
            match bytes.get(*next..end) {
                Some(drawn) => out.copy_from_slice(drawn),
                None => {
                    out.fill(0);
                    *overdrawn = true;
                }
            }
            *next = end;
            true
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KemSecret, NodeKeys, encapsulate, random};

    /// Everything that draws randomness, in one string of bytes.
    fn everything() -> Vec<u8> {
        let keys = NodeKeys::generate();
        let kem = KemSecret::generate();
        let (ciphertext, shared) = encapsulate(kem.public()).unwrap();
        [
            &keys.public().to_bytes()[..],
            &keys.sign(b"message").to_bytes(),
            kem.public().as_bytes(),
            ciphertext.as_bytes(),
            shared.expose(),
            &random::bytes::<16>(),
        ]
        .concat()
    }

    // One seed gives the same keys, signatures and ciphertexts twice, another seed others; without a guard nothing
    // repeats, before and after.
    #[test]
    fn one_seed_one_outcome() {
        let unseeded = everything();
        let with_seed = |seed: &[u8]| {
            let _seeded = from_seed(seed);
            everything()
        };
        let first = with_seed(b"a");
        assert_eq!(with_seed(b"a"), first);
        assert_ne!(with_seed(b"b"), first);
        assert_ne!(everything(), unseeded);
        assert_ne!(everything(), everything());
    }

    // A guard on this thread does not touch another thread, although liboqs's hook is process-wide.
    #[test]
    fn a_guard_speaks_for_its_thread_only() {
        let seeded = || {
            let _seeded = from_seed(b"a");
            everything()
        };
        let here = seeded();
        let _still_seeded = from_seed(b"a");
        std::thread::scope(|scope| {
            let unseeded = scope.spawn(everything).join().unwrap();
            assert_ne!(unseeded, here);
            assert_eq!(scope.spawn(seeded).join().unwrap(), here);
        });
        assert_eq!(everything(), here);
    }

    // Literal randomness is handed out in order; drawing more than was given is noticed when the guard drops.
    #[test]
    fn literal_randomness_is_exact() {
        let literal = from_bytes(&[1, 2, 3]);
        assert_eq!((random::bytes(), random::bytes()), ([1, 2], [3]));
        drop(literal);

        let overdrawn = std::panic::catch_unwind(|| {
            let _literal = from_bytes(&[1, 2, 3]);
            random::bytes::<4>()
        });
        assert!(overdrawn.is_err());
        let _usable_again = from_bytes(&[]);
    }
}
