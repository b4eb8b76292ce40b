// SPDX-License-Identifier: GPL-2.0

//! The hook: btrfs offers its direct reads to a registered server.
//!
//! C header: [`include/linux/btrfs_dio.h`](srctree/include/linux/btrfs_dio.h)

use super::fs::FsId;
use crate::{
    bindings,
    safe::read::DirectRead, //
};
use core::ptr::NonNull;
use kernel::{
    bindings as kbindings,
    container_of,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// What a server says of a read.
pub(crate) enum Verdict {
    /// It has been served, with this result.
    Served(Result<usize>),
    /// It has been detached, and completes later.
    Queued,
    /// It has not: btrfs goes on as if it had not been offered.
    Declined,
}

/// A server of direct reads.
pub(crate) trait Server: Send + Sync + 'static {
    /// Serves or declines a read. Called in the context of `read_iter`: a task, which may sleep
    /// unless the read says otherwise, and holds no lock of the filesystem.
    fn read(&self, read: &mut DirectRead<'_>) -> Verdict;

    /// Drops what is kept of a filesystem that has been unmounted. Task context, may sleep.
    fn unmount(&self, fs: FsId);
}

/// The registration of a server, which lasts until it is dropped.
///
/// # Invariants
///
/// If `registered`, `ops` is registered with btrfs.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Server> {
    #[pin]
    ops: Opaque<bindings::btrfs_dio_ops>,
    registered: bool,
    #[pin]
    server: T,
}

// SAFETY: `ops` is read-only once it is registered; the rest is `Send`.
unsafe impl<T: Server> Send for Registration<T> {}
// SAFETY: As above; `server` is `Sync`.
unsafe impl<T: Server> Sync for Registration<T> {}

impl<T: Server> Registration<T> {
    /// Registers `server`. `EBUSY` if there is a server already. May sleep.
    pub(crate) fn new(server: impl PinInit<T, Error>) -> impl PinInit<Self, Error> {
        try_pin_init!(&this in Self {
            server <- server,
            ops <- Opaque::ffi_init(|ops: *mut bindings::btrfs_dio_ops| {
                // SAFETY: `ops` is memory for the operations.
                unsafe {
                    ops.write(bindings::btrfs_dio_ops {
                        read: Some(read_callback::<T>),
                        unmount: Some(unmount_callback::<T>),
                    })
                }
            }),
            registered: {
                // SAFETY: All else is initialised, so the callback finds a server from now on. The
                // registration is pinned, and undone before the memory goes away.
                // INVARIANT: `new` fails, and so there is no value, if registering does.
                to_result(unsafe {
                    bindings::btrfs_dio_register(Opaque::cast_into(&raw const (*this.as_ptr()).ops))
                })?;
                true
            },
        }? Error)
    }
}

#[pinned_drop]
impl<T: Server> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        if !self.registered {
            return;
        }
        // SAFETY: Registered, by the type invariants. On return no call of the callbacks is
        // running.
        unsafe { bindings::btrfs_dio_unregister(self.ops.get()) }
    }
}

/// Finds the server of a callback.
///
/// # Safety
///
/// `ops` must be those of a registration of a `T` that cannot go away for `'a`.
unsafe fn server<'a, T: Server>(ops: *const bindings::btrfs_dio_ops) -> &'a T {
    // SAFETY: By the contract `ops` is a field of a registration. Only `server` is used, and shared.
    unsafe {
        let ops: *const Opaque<bindings::btrfs_dio_ops> = ops.cast();
        &(*container_of!(ops, Registration<T>, ops)).server
    }
}

/// The callback for an unmount.
///
/// # Safety
///
/// As for [`read_callback`].
unsafe extern "C" fn unmount_callback<T: Server>(
    ops: *const bindings::btrfs_dio_ops,
    fs_info: *const bindings::btrfs_fs_info,
) {
    // SAFETY: As this function demands; btrfs keeps the registration while it calls.
    unsafe { server::<T>(ops) }.unmount(FsId::of(fs_info));
}

/// The callback for a read.
///
/// # Safety
///
/// Only for btrfs to call, with the operations of a registration of a `T`, and as
/// `struct btrfs_dio_ops` promises.
unsafe extern "C" fn read_callback<T: Server>(
    ops: *const bindings::btrfs_dio_ops,
    iocb: *mut kbindings::kiocb,
    iter: *mut kbindings::iov_iter,
    handled: *mut bool,
) -> isize {
    let (Some(iocb), Some(iter)) = (NonNull::new(iocb), NonNull::new(iter)) else {
        return 0;
    };
    // SAFETY: As this function demands.
    let server = unsafe { server::<T>(ops) };
    // SAFETY: btrfs owns both for the duration of this call, and offers only reads of its files.
    let mut read = unsafe { DirectRead::from_raw(iocb, iter) };
    match server.read(&mut read) {
        Verdict::Served(result) => {
            // SAFETY: A pointer to a variable of the caller.
            unsafe { *handled = true };
            read.serve(result)
        }
        Verdict::Queued => {
            // SAFETY: As above.
            unsafe { *handled = true };
            read.queued()
        }
        Verdict::Declined => 0,
    }
}
