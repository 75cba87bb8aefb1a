//! Makes verdicts; nothing else does.
