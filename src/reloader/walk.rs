//! Going through a directory of rules in lexical order, as Go's `filepath.Walk` does: symlinks to
//! directories are not followed (contract `prometheus.md` §7.2).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{RULES_FLAG, ReloaderError};
use super::file::unreadable;

/// Most entries in one directory of rules and all below it. The largest rule sets known have some
/// thousand files; whoever names `/` by mistake must hear of it.
pub(super) const ENTRIES_MAX: usize = 100_000;

/// How deep directories may lie in each other.
pub(super) const DEPTH_MAX: usize = 64;

/// Something met on the way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A directory, before what is in it.
    Dir(PathBuf),
    /// A file, or anything else that is not a directory.
    File(PathBuf),
    /// A symlink that leads to anything but a directory.
    LinkToFile(PathBuf),
    /// A symlink that leads to a directory, and its text.
    LinkToDir(PathBuf, PathBuf),
}

/// Meets everything at and below `root`, which is real: no symlink. Stops at the first error, its
/// own or of `meet`.
pub(super) fn walk(
    root: &Path,
    meet: &mut dyn FnMut(Found) -> Result<(), ReloaderError>,
) -> Result<(), ReloaderError> {
    let mut entries_left = ENTRIES_MAX;
    // The next to meet is at the end.
    let mut waiting = vec![(root.to_owned(), 0)];
    while let Some((path, depth)) = waiting.pop() {
        let found = find(path)?;
        let Found::Dir(path) = &found else {
            meet(found)?;
            continue;
        };
        let path = path.clone();
        meet(found)?;
        if depth == DEPTH_MAX {
            return Err(ReloaderError::TooDeep {
                path,
                flag: RULES_FLAG,
                depth_max: DEPTH_MAX,
            });
        }
        let names = sorted_names(&path, &mut entries_left)?;
        let Some(names) = names else {
            return Err(ReloaderError::TooMany {
                path: root.to_owned(),
                flag: RULES_FLAG,
                entries_max: ENTRIES_MAX,
            });
        };
        let below = names.iter().rev().map(|name| (path.join(name), depth + 1));
        waiting.extend(below);
    }
    Ok(())
}

/// The names in a directory; `None` where they are too many.
fn sorted_names(
    path: &Path,
    entries_left: &mut usize,
) -> Result<Option<Vec<OsString>>, ReloaderError> {
    let failed = |source| unreadable("list", path, RULES_FLAG, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
        match entries_left.checked_sub(1) {
            Some(left) => *entries_left = left,
            None => return Ok(None),
        }
    }
    names.sort_unstable();
    Ok(Some(names))
}

fn find(path: PathBuf) -> Result<Found, ReloaderError> {
    let failed = |op, source| unreadable(op, &path, RULES_FLAG, source);
    let kind = fs::symlink_metadata(&path);
    let kind = kind
        .map_err(|source| failed("look at", source))?
        .file_type();
    if kind.is_dir() {
        return Ok(Found::Dir(path));
    }
    if !kind.is_symlink() {
        return Ok(Found::File(path));
    }
    let target = fs::metadata(&path).map_err(|source| failed("follow the symlink", source))?;
    if !target.is_dir() {
        return Ok(Found::LinkToFile(path));
    }
    let text = fs::read_link(&path).map_err(|source| failed("read the symlink", source))?;
    Ok(Found::LinkToDir(path, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn met(root: &Path) -> Result<Vec<Found>, ReloaderError> {
        let mut met = Vec::new();
        walk(root, &mut |found| {
            met.push(found);
            Ok(())
        })?;
        Ok(met)
    }

    #[test]
    fn the_order_is_lexical_by_directory_and_links_to_directories_are_not_entered() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        fs::create_dir_all(at("a/z")).unwrap();
        fs::write(at("a/z/f"), "").unwrap();
        // Behind `a/z`, though `a.b` < `a/z` as texts.
        fs::write(at("a.b"), "").unwrap();
        symlink("a", at("..data")).unwrap();
        symlink("..data/z/f", at("f")).unwrap();
        let found = met(scratch.path()).unwrap();
        let expected = [
            Found::Dir(scratch.path().to_owned()),
            Found::LinkToDir(at("..data"), "a".into()),
            Found::Dir(at("a")),
            Found::Dir(at("a/z")),
            Found::File(at("a/z/f")),
            Found::File(at("a.b")),
            Found::LinkToFile(at("f")),
        ];
        assert_eq!(found, expected);
        assert_eq!(met(&at("a.b")).unwrap(), [Found::File(at("a.b"))]);
    }

    #[test]
    fn a_symlink_that_leads_nowhere_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        symlink("nowhere", scratch.path().join("link")).unwrap();
        let error = met(scratch.path()).unwrap_err();
        assert!(error.missing().is_some());
        let text = error.to_string();
        assert!(
            text.starts_with("follow the symlink /") && text.contains("/link, of --reloader.rule"),
            "{text}"
        );
        // One that leads to itself is no endless way.
        fs::remove_file(scratch.path().join("link")).unwrap();
        symlink("link", scratch.path().join("link")).unwrap();
        assert!(met(scratch.path()).is_err());
    }

    #[test]
    fn depth_and_number_have_limits() {
        let scratch = tempfile::tempdir().unwrap();
        let mut deep = scratch.path().to_owned();
        for _ in 1..DEPTH_MAX {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(met(scratch.path()).unwrap().len(), DEPTH_MAX);
        fs::create_dir(deep.join("d")).unwrap();
        let error = met(scratch.path()).unwrap_err().to_string();
        assert!(error.contains("more than 64 directories deep"), "{error}");

        let wide = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(wide.path().join(name), "").unwrap();
        }
        let mut left = 3;
        assert_eq!(
            sorted_names(wide.path(), &mut left).unwrap().unwrap().len(),
            3
        );
        assert!(sorted_names(wide.path(), &mut left).unwrap().is_none());
    }
}
