//! QSTP/1: the channel protocol, pure. Handshake, key schedule, records.
