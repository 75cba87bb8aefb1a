//! Ledger records and their hash chain.
