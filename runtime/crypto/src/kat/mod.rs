//! Published vector sets, whole.

#![expect(unsafe_code, reason = "AWS-LC offers ML-DSA contexts in C only")]

mod acvp;
mod wycheproof_sets;
mod x_wing;

use crate::{MlDsaPublic, MlDsaSignature};

/// What [`MlDsaPublic::verify`] does, with a context string: most published vectors have one, nothing in the product does.
fn verifies_with_context(
    public: &MlDsaPublic,
    message: &[u8],
    context: &[u8],
    signature: &MlDsaSignature,
) -> bool {
    use aws_lc_sys::{
        EVP_DigestVerify, EVP_DigestVerifyInit, EVP_MD_CTX_free, EVP_MD_CTX_new,
        EVP_PKEY_CTX_set_signature_context, EVP_PKEY_free, EVP_PKEY_pqdsa_new_raw_public_key,
        NID_MLDSA65,
    };
    let (public, signature) = (public.as_bytes(), signature.as_bytes());
    // SAFETY: every pointer goes with its length, and both objects live until they are freed at the end.
    unsafe {
        let key = EVP_PKEY_pqdsa_new_raw_public_key(NID_MLDSA65, public.as_ptr(), public.len());
        let digest = EVP_MD_CTX_new();
        assert!(!key.is_null() && !digest.is_null());
        let mut settings = std::ptr::null_mut();
        let none = std::ptr::null_mut();
        assert_eq!(
            EVP_DigestVerifyInit(digest, &mut settings, std::ptr::null(), none, key),
            1
        );
        let accepted =
            EVP_PKEY_CTX_set_signature_context(settings, context.as_ptr(), context.len()) == 1
                && EVP_DigestVerify(
                    digest,
                    signature.as_ptr(),
                    signature.len(),
                    message.as_ptr(),
                    message.len(),
                ) == 1;
        EVP_MD_CTX_free(digest);
        EVP_PKEY_free(key);
        accepted
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes
        .try_into()
        .expect("the vector has the length of its type")
}
