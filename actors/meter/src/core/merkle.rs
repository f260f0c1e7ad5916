//! Merkle trees as in RFC 6962 §2.1: leaves and inner nodes are hashed apart, the left subtree is the largest full one.

use pqcnet_crypto::sha256;

/// A hash of the tree.
pub type Hash = [u8; 32];

/// Leaves of one tree at most; paths have at most 32 hashes then.
pub const MAX_LEAVES: usize = u32::MAX as usize;

/// SHA-256(0x00 ‖ leaf).
pub fn leaf(bytes: &[u8]) -> Hash {
    sha256(&[&[0], bytes])
}

/// SHA-256(0x01 ‖ left ‖ right).
fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// The largest power of two below `len`, which is at least 2.
fn split(len: usize) -> usize {
    len.next_power_of_two() / 2
}

/// The root of these leaves' hashes, in order; of none: SHA-256 of nothing.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [only] => *only,
        several => {
            let (left, right) = several.split_at(split(several.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The audit path of the leaf at `index`, from the leaf up; `None` where there is no such leaf.
pub fn path(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let mut out = Vec::new();
    let (mut leaves, mut index) = (leaves, index);
    while leaves.len() > 1 {
        let at = split(leaves.len());
        let (left, right) = leaves.split_at(at);
        if index < at {
            out.push(root(right));
            leaves = left;
        } else {
            out.push(root(left));
            (leaves, index) = (right, index - at);
        }
    }
    out.reverse();
    Some(out)
}

/// Whether a leaf's hash stands at `index` of the `len` leaves under this root.
pub fn proves(root: &Hash, leaf: &Hash, index: usize, len: usize, path: &[Hash]) -> bool {
    index < len && climb(leaf, index, len, path) == Some(*root)
}

fn climb(leaf: &Hash, index: usize, len: usize, path: &[Hash]) -> Option<Hash> {
    if len == 1 {
        return path.is_empty().then_some(*leaf);
    }
    let (top, path) = path.split_last()?;
    let at = split(len);
    Some(if index < at {
        node(&climb(leaf, index, at, path)?, top)
    } else {
        node(top, &climb(leaf, index - at, len - at, path)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The eight inputs of Certificate Transparency's reference tests, and the roots of the first 1 to 8 of them.
    const INPUTS: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn inputs() -> Vec<Hash> {
        let inputs = INPUTS.iter().map(|input| hex::decode(input).unwrap());
        inputs.map(|bytes| leaf(&bytes)).collect()
    }

    // Known answers: the roots of the reference implementation of RFC 6962, and its root of nothing.
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let leaves = inputs();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(root(&[])), empty);
        for (len, wanted) in (1..).zip(ROOTS) {
            assert_eq!(hex::encode(root(&leaves[..len])), wanted);
        }
    }

    // Known answers: the same implementation's audit path of the sixth of eight leaves.
    #[test]
    fn a_path_is_that_of_certificate_transparency() {
        let leaves = inputs();
        let path = path(&leaves, 5).unwrap();
        let wanted = [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        let path: Vec<String> = path.iter().map(hex::encode).collect();
        assert_eq!(path, wanted);
    }

    proptest! {
        // Every leaf's path proves it, at its own place in a tree of its own size and nowhere else; no other leaf, and no path with
        // a hash changed, added or taken away.
        #[test]
        fn paths_prove_their_leaf_alone(len in 1usize..70, index in 0usize..70, bit in 0usize..256) {
            let index = index % len;
            let leaves: Vec<Hash> = (0..len).map(|n| leaf(&n.to_be_bytes())).collect();
            let top = root(&leaves);
            let own = path(&leaves, index).unwrap();
            prop_assert!(proves(&top, &leaves[index], index, len, &own));
            for other in (0..len).filter(|other| *other != index) {
                prop_assert!(!proves(&top, &leaves[other], index, len, &own));
                prop_assert!(!proves(&top, &leaves[index], other, len, &own));
            }
            prop_assert_eq!(path(&leaves, len), None);
            let longer = [&own[..], &[[0; 32]]].concat();
            prop_assert!(!proves(&top, &leaves[index], index, len, &longer));
            if let Some((_, shorter)) = own.split_last() {
                prop_assert!(!proves(&top, &leaves[index], index, len, shorter));
                for at in 0..own.len() {
                    let mut changed = own.clone();
                    changed[at][bit / 8] ^= 1 << (bit % 8);
                    prop_assert!(!proves(&top, &leaves[index], index, len, &changed));
                }
            }
        }
    }
}
