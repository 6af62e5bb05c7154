//! The number of files, and so of connections, that the system lets this process open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the process's own limit to the maximum it may set (shells often give 1,024 where the system allows far more),
/// and returns how many client connections fit below it. An eighth is reserved for backends, the ledger and its files.
#[must_use]
pub fn most_connections(wanted: usize) -> usize {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, ..before };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { before };
    let Some(files) = now.current else { return wanted };
    let most = usize::try_from(files - files / 8).unwrap_or(usize::MAX).max(1);
    if most < wanted {
        log::warn!(
            "limits.connections: reduced from {wanted} to {most}, because the process may open only {files} files"
        );
    }
    wanted.min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_to_others() {
        let most = most_connections(usize::MAX);
        assert_eq!(most_connections(1), 1);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum, "raised");
        assert!(limit.current.is_none_or(|files| most as u64 == files - files / 8));
    }
}
