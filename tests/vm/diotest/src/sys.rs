// SPDX-License-Identifier: GPL-2.0

//! System calls that the standard library does not offer, as functions on
//! slices of ordinary Rust types.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `-1` to the error in `errno`.
pub fn check(ret: isize) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::last_os_error())
}

/// A path as the kernel wants it.
fn cstring(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without NUL")
}

/// Reads with preadv2(2), or preadv(2) if `flags` is zero.
pub fn preadv(fd: RawFd, iov: &[libc::iovec], offset: i64, flags: i32) -> io::Result<usize> {
    // The kernel takes any count: it says EINVAL for those over UIO_MAXIOV.
    let count = iov.len() as libc::c_int;
    // SAFETY: `iov` describes `count` vectors. What they point to is checked by
    // the kernel, and is memory of mappings that no reference is held into.
    check(unsafe {
        if flags == 0 {
            libc::preadv(fd, iov.as_ptr(), count, offset)
        } else {
            libc::preadv2(fd, iov.as_ptr(), count, offset, flags)
        }
    })
}

/// Reads with readv(2) at the file position.
pub fn readv(fd: RawFd, iov: &[libc::iovec]) -> io::Result<usize> {
    // SAFETY: As for `preadv`.
    check(unsafe { libc::readv(fd, iov.as_ptr(), iov.len() as libc::c_int) })
}

/// Reads with pread(2) into one vector.
pub fn pread(fd: RawFd, iov: &libc::iovec, offset: i64) -> io::Result<usize> {
    // SAFETY: As for `preadv`.
    check(unsafe { libc::pread(fd, iov.iov_base, iov.iov_len, offset) })
}

/// Reads with read(2) into one vector.
pub fn read(fd: RawFd, iov: &libc::iovec) -> io::Result<usize> {
    // SAFETY: As for `preadv`.
    check(unsafe { libc::read(fd, iov.iov_base, iov.iov_len) })
}

/// The file position.
pub fn position(fd: RawFd) -> io::Result<u64> {
    // SAFETY: No pointers.
    check(unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) } as isize).map(|p| p as u64)
}

/// Sets the file position.
pub fn seek(fd: RawFd, offset: i64) -> io::Result<()> {
    // SAFETY: No pointers.
    check(unsafe { libc::lseek(fd, offset, libc::SEEK_SET) } as isize).map(drop)
}

/// How many bytes can be written to the file system at `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = cstring(path);
    // SAFETY: Plain data, for which zeros are valid.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: A string that ends, and memory to write the answer to.
    check(unsafe { libc::statvfs(path.as_ptr(), &mut stat) } as isize)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Allocates, punches or zeroes a range, by `mode`.
pub fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (offset as i64, len as i64);
    // SAFETY: No pointers.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) } as isize).map(drop)
}

/// The id of the calling thread: what btrfs's pid rule looks at.
pub fn gettid() -> u32 {
    // SAFETY: No arguments.
    let tid = unsafe { libc::gettid() };
    tid as u32
}

/// Drops clean page cache of the whole machine.
pub fn drop_caches() -> io::Result<()> {
    // SAFETY: No arguments.
    unsafe { libc::sync() };
    std::fs::write("/proc/sys/vm/drop_caches", "3")
}

/// Brings in all memory that this process has mapped, and keeps it.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: No pointers.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT) } as isize).map(drop)
}

/// Writes out all of the file system of a file, and commits.
pub fn sync_fs(file: &File) -> io::Result<()> {
    // SAFETY: A descriptor.
    check(unsafe { libc::syncfs(file.as_raw_fd()) } as isize).map(drop)
}

/// Drops the clean page cache of one file.
pub fn drop_pages(file: &File) -> io::Result<()> {
    file.sync_all()?;
    // SAFETY: No pointers.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Keeps reads of `file` through the page cache from bringing in more than they ask for.
pub fn no_readahead(file: &File) -> io::Result<()> {
    // SAFETY: No pointers.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Mounts btrfs.
pub fn mount(device: &Path, mnt: &Path, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let (device, mnt) = (cstring(device), cstring(mnt));
    let options = CString::new(options)?;
    // SAFETY: Four NUL-terminated strings.
    check(unsafe {
        libc::mount(
            device.as_ptr(),
            mnt.as_ptr(),
            c"btrfs".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    } as isize)
    .map(drop)
}

/// Unmounts.
pub fn umount(mnt: &Path) -> io::Result<()> {
    let mnt = cstring(mnt);
    // SAFETY: A NUL-terminated string.
    check(unsafe { libc::umount2(mnt.as_ptr(), 0) } as isize).map(drop)
}

/// Unlocks a mount point by force of habit: whatever is on it, if anything.
pub fn umount_lazily(mnt: &Path) {
    let mnt = cstring(mnt);
    // SAFETY: A NUL-terminated string.
    unsafe { libc::umount2(mnt.as_ptr(), libc::MNT_DETACH) };
}

/// Calls ioctl `request` with `arg`, which must be the structure it is for.
///
/// # Safety
///
/// `request` must be one whose argument is a `T`, or a `T` that begins a buffer
/// of which it says the size.
pub unsafe fn ioctl<T: ?Sized>(file: &File, request: u64, arg: &mut T) -> io::Result<usize> {
    let arg: *mut T = arg;
    // SAFETY: By the contract of this function.
    let ret = unsafe { libc::ioctl(file.as_raw_fd(), request, arg.cast::<u8>()) };
    check(ret as isize)
}

/// Loads a module from an open file, with parameters.
pub fn finit_module(file: &File, parameters: &str) -> io::Result<()> {
    let parameters = CString::new(parameters)?;
    // SAFETY: A file and a NUL-terminated string.
    check(unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            parameters.as_ptr(),
            0,
        )
    } as isize)
    .map(drop)
}

/// Unloads a module by name.
pub fn delete_module(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: A NUL-terminated string.
    check(
        unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) } as isize,
    )
    .map(drop)
}

/// Moves bytes from a file to another inside the kernel.
pub fn sendfile(out: RawFd, input: RawFd, offset: u64, len: usize) -> io::Result<usize> {
    let mut offset = offset as i64;
    // SAFETY: `offset` outlives the call.
    check(unsafe { libc::sendfile(out, input, &raw mut offset, len) })
}

/// Moves bytes from a file at `offset` into a pipe.
pub fn splice(input: RawFd, offset: u64, pipe: RawFd, len: usize) -> io::Result<usize> {
    let mut offset = offset as i64;
    // SAFETY: `offset` outlives the call, and the pipe has no offset.
    check(unsafe { libc::splice(input, &raw mut offset, pipe, std::ptr::null_mut(), len, 0) })
}

/// A pipe: its reading and its writing end.
pub fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: Room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } as isize)?;
    // SAFETY: Both were just made.
    Ok(unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) })
}

/// What a file system tells of its errors to those who listen: FAN_FS_ERROR.
pub struct Errors(File);

impl Errors {
    /// Listens to the file system that is mounted there.
    pub fn of(mnt: &Path) -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_FID | libc::FAN_NONBLOCK;
        // SAFETY: No pointers.
        let fd = check(unsafe { libc::fanotify_init(flags, 0) } as isize)?;
        // SAFETY: A descriptor of nobody else's.
        let errors = Self(unsafe { File::from_raw_fd(fd as RawFd) });
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        let (mask, path) = (libc::FAN_FS_ERROR, cstring(mnt));
        // SAFETY: The path is a string that ends.
        let marked = unsafe {
            libc::fanotify_mark(
                errors.0.as_raw_fd(),
                flags,
                mask,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        };
        check(marked as isize)?;
        Ok(errors)
    }

    /// Returns the errors that have been told since the last call; none if there are none within
    /// `time`.
    pub fn next(&mut self, time: std::time::Duration) -> io::Result<Vec<i32>> {
        use std::io::Read;
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: One descriptor, as is said.
        if check(unsafe { libc::poll(&mut poll, 1, time.as_millis() as i32) } as isize)? == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = [0; 4096];
        let len = self.0.read(&mut bytes)?;
        let word = |at: usize| -> Option<u32> {
            let four = bytes[..len].get(at..at + 4)?;
            Some(u32::from_ne_bytes(four.try_into().ok()?))
        };
        let mut errors = Vec::new();
        let mut event = 0;
        while let Some(event_len) = word(event).filter(|len| *len > 0) {
            // The records follow the metadata of 24 bytes: type, padding, length; of an error, then,
            // its number.
            let mut at = event + 24;
            let end = event + event_len as usize;
            while let Some(head) = word(at).filter(|_| at < end) {
                let (kind, record) = (head as u8, (head >> 16) as usize);
                if kind == libc::FAN_EVENT_INFO_TYPE_ERROR {
                    errors.extend(word(at + 4).map(|error| error as i32));
                }
                at += record.max(4);
            }
            event = end;
        }
        Ok(errors)
    }
}
