//! The one file that brings rules and edges together.
