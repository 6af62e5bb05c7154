//! Reads the sources and checks how they depend on each other: which family may use which, that no folder has an import
//! circle, the absences that ARCHITECTURE.md names, and the files and words that contributors' documents name. These
//! tests use only the files of the repository.
#![allow(clippy::unwrap_used, reason = "a file that cannot be read fails the test")]

mod absences;
mod arrows;
mod circles;
mod documents;
mod mutants;
mod sources;
mod tokens;
