//! loom's lock, with a `try_lock` that fails while somebody is inside: loom's own waits then.

use loom::sync::atomic::{AtomicBool, Ordering};
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};

/// Stands in for [`std::sync::Mutex`]. Nobody panics inside, so it is never poisoned.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    inside: AtomicBool,
    inner: loom::sync::Mutex<T>,
}

#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    inside: &'a AtomicBool,
    inner: loom::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self {
            inside: AtomicBool::new(false),
            inner: loom::sync::Mutex::new(value),
        }
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let inner = self.inner.lock().expect("nobody panics inside");
        self.inside.store(true, Ordering::SeqCst);
        let inside = &self.inside;
        Ok(MutexGuard { inside, inner })
    }

    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        // It reads the newest value, where a load may read an older one, and writes none that a later one
        // could take for the newest.
        let (free, newest) = (false, Ordering::SeqCst);
        let seen = self.inside.compare_exchange(free, free, newest, newest);
        if seen.is_err() {
            return Err(TryLockError::WouldBlock);
        }
        self.lock().map_err(TryLockError::Poisoned)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.inside.store(false, Ordering::SeqCst);
    }
}
