//! One supervision tree per role, generic over Platform.
