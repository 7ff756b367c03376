//! Taking turns: commands and tests that change the same files wait for each other, also across
//! processes.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::error::{ClusterError, Result};
use super::progress::step;

/// Waits for the lock of that file, saying for what. The lock goes with the returned file; taking
/// it again while it is held waits for ever.
pub fn take_turn(path: &Path, waiting_for: &str) -> Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(ClusterError::io("create", dir))?;
    }
    let file = File::create(path).map_err(ClusterError::io("create", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            step(&format!("Waiting for {waiting_for}"), || file.lock())
                .map_err(ClusterError::io("lock", path))?;
            Ok(file)
        }
        Err(TryLockError::Error(error)) => Err(ClusterError::io("lock", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_waits_until_the_first_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = take_turn(&path, "nobody").unwrap();
        assert!(matches!(
            File::create(&path).unwrap().try_lock(),
            Err(TryLockError::WouldBlock)
        ));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| take_turn(&path, "the first"));
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
