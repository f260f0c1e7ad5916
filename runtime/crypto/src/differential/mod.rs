//! Second implementations held against the first: RustCrypto's `aes-gcm`, `chacha20poly1305`, `ml-kem`, `ml-dsa` and
//! `x-wing`, written by other people in another language than AWS-LC and liboqs.
//!
//! Both get the same random and edge inputs. What one makes the other must take, in both directions; wherever an algorithm
//! leaves no choice the bytes must be equal; and of damaged inputs both must think the same.

mod aead;
mod kem;
mod ml_dsa;

use proptest::prelude::*;

fn bytes<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    proptest::collection::vec(any::<u8>(), N).prop_map(|bytes| bytes.try_into().unwrap())
}

/// Values at which arithmetic and encodings change: nothing set, everything set, one bit, the modulus's neighbours.
fn edges<const N: usize>() -> Vec<[u8; N]> {
    let at = |place: usize, value: u8| {
        let mut bytes = [0; N];
        bytes[place] = value;
        bytes
    };
    vec![
        [0; N],
        [0xff; N],
        [0x80; N],
        at(0, 1),
        at(N - 1, 0x80),
        at(N / 2, 0x0d),
        std::array::from_fn(|n| n as u8),
    ]
}

/// A seed at random or at an edge.
fn seed<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    prop_oneof![4 => bytes(), 1 => proptest::sample::select(edges())]
}
