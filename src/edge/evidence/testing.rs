//! A registry in memory for tests: manifests, tags, lists and faults, and a count of what was asked.
