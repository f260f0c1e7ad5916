//! The shape of a secret byte string, defined once.

/// Defines a secret of `$n` bytes on the heap (so that moving it leaves no copy): zeroised on drop, redacted `Debug`,
/// nothing else derived.
macro_rules! secret_bytes {
    ($(#[$doc:meta])* $vis:vis struct $name:ident($n:literal)) => {
        $(#[$doc])*
        $vis struct $name(Box<zeroize::Zeroizing<[u8; $n]>>);

        impl $name {
            /// Takes a copy of `bytes`; the caller's own copy stays the caller's to erase.
            #[allow(dead_code, reason = "not every secret is read from outside")]
            $vis fn copied_from(bytes: &[u8; $n]) -> Self {
                let mut secret = Self::zeroed();
                secret.0.copy_from_slice(bytes);
                secret
            }

            /// The raw bytes, for the key schedule or the engine they are meant for.
            $vis fn expose(&self) -> &[u8; $n] {
                &self.0
            }

            fn zeroed() -> Self {
                Self(Box::new(zeroize::Zeroizing::new([0u8; $n])))
            }

            #[allow(dead_code, reason = "not every secret is filled in place")]
            fn expose_mut(&mut self) -> &mut [u8; $n] {
                &mut self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

pub(crate) use secret_bytes;
