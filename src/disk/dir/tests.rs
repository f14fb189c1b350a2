//! Tests of [`Dir`] on a real file system.

use super::*;
use std::os::unix::fs::symlink;

async fn scratch() -> (tempfile::TempDir, Dir) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = Dir::open(scratch.path(), Containment::Beneath)
        .await
        .unwrap();
    (scratch, dir)
}

#[tokio::test]
async fn no_symlink_leads_out_of_a_contained_directory() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    let (scratch, dir) = scratch().await;
    std::fs::create_dir(scratch.path().join("real")).unwrap();
    std::fs::write(scratch.path().join("real/f"), "inside").unwrap();
    symlink(outside.path(), scratch.path().join("out")).unwrap();
    symlink("real", scratch.path().join("in")).unwrap();
    let error = dir.open_file("out/secret").await.unwrap_err();
    assert!(error.leads_out(), "{error:?}");
    assert!(dir.open_file("../secret").await.is_err());
    assert!(dir.hard_link("out/secret", "stolen").await.is_err());
    assert_eq!(dir.read_small("in/f", 100).await.unwrap().0, b"inside");

    let open = Dir::open(scratch.path(), Containment::Unconfined)
        .await
        .unwrap();
    assert_eq!(open.read_small("out/secret", 100).await.unwrap().0, b"x");
    dir.remove_tree("out").await.unwrap();
    assert!(
        outside.path().join("secret").exists(),
        "a removed symlink is not followed"
    );
}

#[tokio::test]
async fn without_openat2_the_step_by_step_way_holds_as_well() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    let (scratch, dir) = scratch().await;
    std::fs::create_dir_all(scratch.path().join("a/b")).unwrap();
    std::fs::write(scratch.path().join("a/b/f"), "x").unwrap();
    symlink(outside.path(), scratch.path().join("out")).unwrap();
    let open = |relative: &str| {
        let root = dir.0.descriptor.as_fd();
        let mode = Mode::empty();
        crate::disk::path::open_step_by_step(root, Path::new(relative), OFlags::RDONLY, mode)
    };
    assert!(open("a/b/f").is_ok());
    assert!(open(".").is_ok());
    for refused in ["out/secret", "out", "a/../../x"] {
        assert!(
            open(refused).unwrap_err().to_string().contains("leads out"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_fifo_is_refused_without_waiting_for_a_writer() {
    let (_scratch, dir) = scratch().await;
    rustix::fs::mknodat(
        &dir.0.descriptor,
        "pipe",
        FileType::Fifo,
        Mode::from(0o600),
        0,
    )
    .unwrap();
    let error = dir.open_file("pipe").await.unwrap_err();
    assert!(
        error.source.to_string().contains("not a regular file"),
        "{error:?}"
    );
}

#[tokio::test]
async fn trees_come_and_go() {
    let (scratch, dir) = scratch().await;
    dir.create_dirs("a/b/c", 0o750).await.unwrap();
    dir.create_dirs("a/b/c", 0o750).await.unwrap();
    dir.write_atomic("a/b/f", b"1".to_vec()).await.unwrap();
    dir.hard_link("a/b/f", "a/b/c/g").await.unwrap();
    dir.write_atomic("a/b/f", b"22".to_vec()).await.unwrap();
    assert_eq!(dir.read_small("a/b/c/g", 10).await.unwrap().0, b"1");
    assert_eq!(dir.read_small("a/b/f", 2).await.unwrap().0, b"22");
    assert!(dir.read_small("a/b/f", 1).await.is_err());
    let names: Vec<_> = dir
        .list("a/b")
        .await
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names, ["c", "f"]);
    assert!(!dir.remove_empty("a").await.unwrap());
    dir.remove_tree("a").await.unwrap();
    dir.remove_tree("a").await.unwrap();
    assert_eq!(dir.kind("a").await.unwrap(), None);
    assert!(std::fs::read_dir(scratch.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn a_stamp_tells_a_change_that_the_identity_hides() {
    let (scratch, dir) = scratch().await;
    let path = scratch.path().join("f");
    std::fs::write(&path, "one").unwrap();
    let before = dir.stamp("f").await.unwrap();
    assert_eq!(
        before.identity,
        dir.open_file("f").await.unwrap().identity()
    );
    assert_eq!(dir.stamp("f").await.unwrap(), before);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    // The change time moves in steps of the kernel's tick: written until it has.
    let after = loop {
        std::os::unix::fs::FileExt::write_all_at(&file, b"two", 0).unwrap();
        file.set_modified(modified).unwrap();
        let now = dir.stamp("f").await.unwrap();
        if now != before {
            break now;
        }
    };
    assert_eq!(after.identity, before.identity);
    assert!(after.ctime_ns > before.ctime_ns);
}

#[tokio::test]
async fn a_rename_replaces_and_stays_below_the_directory() {
    let outside = tempfile::tempdir().unwrap();
    let (scratch, dir) = scratch().await;
    symlink(outside.path(), scratch.path().join("out")).unwrap();
    dir.create_dirs("a/b", 0o750).await.unwrap();
    dir.write_atomic("a/b/f", b"1".to_vec()).await.unwrap();
    dir.write_atomic("g", b"2".to_vec()).await.unwrap();
    dir.rename("a/b/f", "g").await.unwrap();
    assert_eq!(dir.read_small("g", 10).await.unwrap().0, b"1");
    dir.rename("a", "c").await.unwrap();
    assert_eq!(dir.kind("c/b").await.unwrap(), Some(EntryKind::Directory));
    assert!(dir.rename("g", "out/g").await.unwrap_err().leads_out());
    let error = dir.rename("a", "d").await.unwrap_err();
    assert!(error.is_not_found() && error.op == "rename", "{error:?}");
    assert_eq!(error.path, scratch.path().join("a"));
    let faults = Faults::crash_at(0, false);
    let doomed = Dir::open_with_faults(scratch.path(), Containment::Beneath, faults);
    assert!(doomed.await.unwrap().rename("g", "h").await.is_err());
    assert_eq!(dir.kind("h").await.unwrap(), None);
}

#[tokio::test]
async fn only_one_opening_of_a_directory_has_its_lock() {
    let (scratch, first) = scratch().await;
    let second = Dir::open(scratch.path(), Containment::Beneath);
    let second = second.await.unwrap();
    assert!(first.try_lock().await.unwrap());
    assert!(!second.try_lock().await.unwrap());
    let clone = first.clone();
    assert!(clone.try_lock().await.unwrap(), "it is the same opening");
    drop(first);
    assert!(!second.try_lock().await.unwrap(), "the clone has it still");
    drop(clone);
    assert!(second.try_lock().await.unwrap());
}

#[test]
fn a_file_system_without_locks_counts_as_free() {
    let path = Path::new("/data");
    for errno in [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS, Errno::BADF] {
        assert!(lock_taken(path, Err(errno)).unwrap(), "{errno}");
    }
    assert!(!lock_taken(path, Err(Errno::WOULDBLOCK)).unwrap());
    assert!(lock_taken(path, Err(Errno::IO)).is_err());
}

#[tokio::test]
async fn names_of_any_bytes_are_listed() {
    use std::os::unix::ffi::OsStrExt;
    let (scratch, dir) = scratch().await;
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    std::fs::write(scratch.path().join(odd), "").unwrap();
    assert_eq!(dir.list("").await.unwrap()[0].name, odd);
}
