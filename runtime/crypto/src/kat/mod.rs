//! Published vector sets, whole.

mod acvp;
mod wycheproof_sets;
mod x_wing;

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes
        .try_into()
        .expect("the vector has the length of its type")
}
