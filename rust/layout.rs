// SPDX-License-Identifier: GPL-2.0

//! Whether bindgen and the compiler of the kernel agree.
//!
//! The bindings are made by libclang with the flags of the build. Should these ever not be what the
//! kernel was built with, structures differ silently; so the layout of what is read and written
//! from Rust is compared when the module is loaded.

use crate::{
    bindings,
    safe::btrfs::extent_map, //
};
use core::mem::{
    offset_of,
    size_of, //
};
use kernel::{
    bindings as kbindings,
    prelude::*, //
};

/// Fails with `ENOEXEC` if a layout differs. Any context.
pub(crate) fn check() -> Result {
    // CAST: Sizes and offsets of structures are far below 4 GiB.
    let rust = bindings::bdio_layout {
        extent_map_hole: extent_map::EXTENT_MAP_HOLE,
        extent_map_inline: extent_map::EXTENT_MAP_INLINE,
        path_size: size_of::<bindings::btrfs_path>() as u32,
        inode_vfs_inode: offset_of!(bindings::btrfs_inode, vfs_inode) as u32,
        inode_io_tree: offset_of!(bindings::btrfs_inode, io_tree) as u32,
        inode_extent_tree: offset_of!(bindings::btrfs_inode, extent_tree) as u32,
        inode_runtime_flags: offset_of!(bindings::btrfs_inode, runtime_flags) as u32,
        fs_info_sectorsize: offset_of!(bindings::btrfs_fs_info, sectorsize) as u32,
        fs_info_csum_type: offset_of!(bindings::btrfs_fs_info, csum_type) as u32,
        fs_info_csums_per_leaf: offset_of!(bindings::btrfs_fs_info, csums_per_leaf) as u32,
        fs_info_fs_devices: offset_of!(bindings::btrfs_fs_info, fs_devices) as u32,
        fs_devices_read_policy: offset_of!(bindings::btrfs_fs_devices, read_policy) as u32,
        root_fs_info: offset_of!(bindings::btrfs_root, fs_info) as u32,
        inode_root: offset_of!(bindings::btrfs_inode, root) as u32,
        inode_flags: offset_of!(bindings::btrfs_inode, flags) as u32,
        replace_srcdev: offset_of!(bindings::btrfs_dev_replace, srcdev) as u32,
        replace_state: offset_of!(bindings::btrfs_dev_replace, replace_state) as u32,
        extent_map_flags: offset_of!(bindings::extent_map, flags) as u32,
        extent_map_disk_bytenr: offset_of!(bindings::extent_map, disk_bytenr) as u32,
        extent_map_disk_num_bytes: offset_of!(bindings::extent_map, disk_num_bytes) as u32,
        extent_map_ram_bytes: offset_of!(bindings::extent_map, ram_bytes) as u32,
        extent_map_generation: offset_of!(bindings::extent_map, generation) as u32,
        dio_ops_size: size_of::<bindings::btrfs_dio_ops>() as u32,
        percpu_ref_size: size_of::<kbindings::percpu_ref>() as u32,
        work_size: size_of::<kbindings::work_struct>() as u32,
        fs_info_commit_root_sem: offset_of!(bindings::btrfs_fs_info, commit_root_sem) as u32,
        fs_info_dev_replace: offset_of!(bindings::btrfs_fs_info, dev_replace) as u32,
        chunk_map_stripes: offset_of!(bindings::btrfs_chunk_map, stripes) as u32,
        io_stripe_size: size_of::<bindings::btrfs_io_stripe>() as u32,
        extent_map_size: size_of::<bindings::extent_map>() as u32,
        device_bdev: offset_of!(bindings::btrfs_device, bdev) as u32,
        device_dev_state: offset_of!(bindings::btrfs_device, dev_state) as u32,
        bio_size: size_of::<kbindings::bio>() as u32,
        iov_iter_size: size_of::<kbindings::iov_iter>() as u32,
        kiocb_size: size_of::<kbindings::kiocb>() as u32,
        bio_private: offset_of!(kbindings::bio, bi_private) as u32,
        bio_set_size: size_of::<kbindings::bio_set>() as u32,
        bio_vec_size: size_of::<kbindings::bio_vec>() as u32,
        plug_size: size_of::<kbindings::blk_plug>() as u32,
        completion_size: size_of::<kbindings::completion>() as u32,
        vfs_inode_mapping: offset_of!(kbindings::inode, i_mapping) as u32,
        rb_node_size: size_of::<kbindings::rb_node>() as u32,
        z_stream_size: size_of::<bindings::z_stream>() as u32,
        shrinker_private_data: offset_of!(kbindings::shrinker, private_data) as u32,
        shrinker_scan_objects: offset_of!(kbindings::shrinker, scan_objects) as u32,
        shrink_control_nr_to_scan: offset_of!(kbindings::shrink_control, nr_to_scan) as u32,
        kiocb_complete: offset_of!(kbindings::kiocb, ki_complete) as u32,
        iov_iter_type: offset_of!(kbindings::iov_iter, iter_type) as u32,
    };
    let mut c = bindings::bdio_layout::default();
    // SAFETY: The function fills what it is given.
    unsafe { bindings::bdio_layout(&mut c) };
    if c == rust {
        Ok(())
    } else {
        pr_err!("bindgen and the compiler of the module disagree on structures of the kernel\n");
        Err(ENOEXEC)
    }
}
