//! The Debian package, from `[package.metadata.deb]` of `Cargo.toml`: what `cargo deb` reads too.
//!
//! Needs cargo, `readelf` and `dpkg-deb` and nothing to be compiled for it, so that the package is
//! built in seconds wherever the product is. The same sources make the same bytes: owners are root,
//! and no time is younger than the changelog's last entry.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::GzBuilder;
use md5::{Digest as _, Md5};
use serde::Deserialize;

/// Where the parts of the package are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    /// The directory of `Cargo.toml`.
    pub(crate) root: &'a Path,
    /// The program.
    pub(crate) binary: &'a Path,
    /// What `package documents` wrote.
    pub(crate) documents: &'a Path,
}

/// `[package.metadata.deb]`, as far as it is used here; an unknown key is refused, so that none
/// is obeyed by `cargo deb` alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Metadata {
    maintainer: String,
    section: String,
    priority: String,
    revision: String,
    depends: String,
    suggests: String,
    extended_description: String,
    changelog: PathBuf,
    maintainer_scripts: PathBuf,
    conf_files: Vec<String>,
    /// Source, destination, mode.
    assets: Vec<(String, String, String)>,
}

#[derive(Deserialize)]
struct CargoMetadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    description: String,
    metadata: PackageMetadata,
}

#[derive(Deserialize)]
struct PackageMetadata {
    deb: Metadata,
}

/// Places in `Cargo.toml` that stand for what cargo built.
const BUILT_BINARY: &str = "target/release/outrigger";
const BUILT_DOCUMENTS: &str = "target/packages/";

const SCRIPTS: &[&str] = &["preinst", "postinst", "prerm", "postrm"];

type Result<T> = std::result::Result<T, String>;

/// Builds the package into the directory and says where it is; `compression` is for dpkg-deb.
///
/// # Errors
/// What can't be read, written or run, as text: there is nobody but a human to tell.
pub(crate) fn build(
    sources: &Sources<'_>,
    directory: &Path,
    compression: &[&str],
) -> Result<PathBuf> {
    let package = package(sources.root)?;
    let deb = &package.metadata.deb;
    let tree = directory.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(told(&tree))?;
    }
    let version = format!("{}-{}", package.version, deb.revision);
    let changelog = sources.root.join(&deb.changelog);
    let changelog = fs::read(&changelog).map_err(told(&changelog))?;
    let epoch = changed_at(&changelog, &version)?;
    for (source, destination, mode) in &deb.assets {
        install(sources, &tree, source, destination, mode)?;
    }
    let documents = tree.join("usr/share/doc").join(&package.name);
    write_gzipped(&documents.join("changelog.Debian.gz"), &changelog)?;
    let architecture = run(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let depends = depends(deb, sources.binary)?;
    let files = files(&tree)?;
    let control = control(&package, &version, architecture, &depends, &files);
    write_control(sources, &tree, deb, &control, &files)?;
    set_directory_modes(&tree)?;
    let name = format!("{}_{version}_{architecture}.deb", package.name);
    let built = directory.join(name);
    let mut packing = Command::new("dpkg-deb");
    packing
        .args(compression)
        .args(["--root-owner-group", "--build"]);
    packing
        .args([&tree, &built])
        .env("SOURCE_DATE_EPOCH", epoch);
    run(&mut packing)?;
    Ok(built)
}

fn package(root: &Path) -> Result<Package> {
    let mut asked = Command::new(env!("CARGO"));
    asked.args(["metadata", "--no-deps", "--offline", "--format-version=1"]);
    asked.arg("--manifest-path").arg(root.join("Cargo.toml"));
    let text = run(&mut asked)?;
    let metadata: CargoMetadata =
        serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let package = metadata.packages.into_iter().next();
    package.ok_or_else(|| "cargo metadata names no package".to_owned())
}

/// Seconds since the epoch of the changelog's newest entry, which must be this version's.
fn changed_at(changelog: &[u8], version: &str) -> Result<String> {
    let text = String::from_utf8_lossy(changelog);
    let newest = text.lines().next().unwrap_or_default();
    if !newest.starts_with(&format!("outrigger ({version}) ")) {
        return Err(format!(
            "the changelog begins with {newest:?} and not with {version}"
        ));
    }
    let trailer = text.lines().find_map(|line| line.strip_prefix(" -- "));
    let date = trailer.and_then(|line| line.split_once(">  "));
    let (_, date) = date.ok_or("the changelog's first entry has no line with its date")?;
    let epoch = run(Command::new("date").args(["-u", "+%s", "-d", date]))?;
    Ok(epoch.trim().to_owned())
}

fn install(
    sources: &Sources<'_>,
    tree: &Path,
    source: &str,
    destination: &str,
    mode: &str,
) -> Result<()> {
    let mode = u32::from_str_radix(mode, 8).map_err(|error| format!("mode {mode}: {error}"))?;
    for found in found(sources, source)? {
        let mut target = tree.join(destination);
        if destination.ends_with('/') {
            target.push(found.file_name().unwrap_or_default());
        }
        let content = fs::read(&found).map_err(told(&found))?;
        if destination.contains("/man/") {
            let name = format!("{}.gz", target.display());
            target = PathBuf::from(name);
            write_gzipped(&target, &content)?;
        } else {
            write(&target, &content)?;
        }
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).map_err(told(&target))?;
    }
    Ok(())
}

/// The files that a source of `assets` names; its last part may be `*.suffix`.
fn found(sources: &Sources<'_>, source: &str) -> Result<Vec<PathBuf>> {
    if source == BUILT_BINARY {
        return Ok(vec![sources.binary.to_owned()]);
    }
    let path = match source.strip_prefix(BUILT_DOCUMENTS) {
        Some(below) => sources.documents.join(below),
        None => sources.root.join(source),
    };
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let Some(suffix) = name.strip_prefix('*') else {
        return Ok(vec![path]);
    };
    let directory = path.parent().unwrap_or(&path).to_owned();
    let mut all = entries(&directory)?;
    all.retain(|path| path.to_string_lossy().ends_with(suffix));
    if all.is_empty() {
        return Err(format!("no file is named {source}"));
    }
    Ok(all)
}

/// `$auto` becomes what the binary is linked with.
fn depends(deb: &Metadata, binary: &Path) -> Result<String> {
    Ok(deb.depends.replace("$auto", &libraries(binary)?))
}

fn libraries(binary: &Path) -> Result<String> {
    let mut asked = Command::new("readelf");
    asked
        .args(["--wide", "--dynamic", "--version-info"])
        .arg(binary)
        .env("LC_ALL", "C");
    let text = run(&mut asked)?;
    let newest = text.split_whitespace().filter_map(|word| {
        let version = word.trim_end_matches(',').strip_prefix("GLIBC_2.")?;
        version.split('.').next()?.parse::<u32>().ok()
    });
    let newest = newest
        .max()
        .ok_or("the binary asks for no version of libc")?;
    let mut packages = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("(NEEDED)")) {
        let name = line.split(['[', ']']).nth(1).unwrap_or_default();
        let (package, since) = match name {
            "libgcc_s.so.1" => ("libgcc-s1", "4.2".to_owned()),
            "libc.so.6" | "libm.so.6" => ("libc6", format!("2.{newest}")),
            loader if loader.starts_with("ld-linux") => ("libc6", format!("2.{newest}")),
            other => return Err(format!("no package is known to hold {other}")),
        };
        packages.insert(package, since);
    }
    let listed = packages
        .iter()
        .map(|(name, since)| format!("{name} (>= {since})"));
    Ok(listed.collect::<Vec<_>>().join(", "))
}

fn control(
    package: &Package,
    version: &str,
    architecture: &str,
    depends: &str,
    files: &[PathBuf],
) -> String {
    let deb = &package.metadata.deb;
    let bytes = files.iter().filter_map(|file| fs::metadata(file).ok());
    let kibibytes = bytes.map(|found| found.len().div_ceil(1024)).sum::<u64>();
    let mut text = format!(
        "Package: {}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {}\n\
         Installed-Size: {kibibytes}\nDepends: {depends}\nSuggests: {}\nSection: {}\n\
         Priority: {}\nDescription: {}\n",
        package.name, deb.maintainer, deb.suggests, deb.section, deb.priority, package.description
    );
    for line in deb.extended_description.trim().lines() {
        let line = if line.trim().is_empty() { "." } else { line };
        text.push_str(&format!(" {line}\n"));
    }
    text
}

fn write_control(
    sources: &Sources<'_>,
    tree: &Path,
    deb: &Metadata,
    control: &str,
    files: &[PathBuf],
) -> Result<()> {
    let directory = tree.join("DEBIAN");
    write(&directory.join("control"), control.as_bytes())?;
    let conffiles: String = deb
        .conf_files
        .iter()
        .map(|path| format!("{path}\n"))
        .collect();
    write(&directory.join("conffiles"), conffiles.as_bytes())?;
    let mut sums = String::new();
    for file in files {
        let content = fs::read(file).map_err(told(file))?;
        let path = file.strip_prefix(tree).unwrap_or(file);
        let sum = hex::encode(Md5::digest(&content));
        sums.push_str(&format!("{sum}  {}\n", path.display()));
    }
    write(&directory.join("md5sums"), sums.as_bytes())?;
    for script in SCRIPTS {
        let source = sources.root.join(&deb.maintainer_scripts).join(script);
        if !source.exists() {
            continue;
        }
        let target = directory.join(script);
        write(&target, &fs::read(&source).map_err(told(&source))?)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).map_err(told(&target))?;
    }
    Ok(())
}

// === Files ===

/// All files below the directory, in order.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(directory)? {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(directory).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<Vec<_>>>()
    });
    let mut listed = listed.map_err(told(directory))?;
    listed.sort();
    Ok(listed)
}

/// Directories are as Debian has them, whatever the umask.
fn set_directory_modes(directory: &Path) -> Result<()> {
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory, mode).map_err(told(directory))?;
    for path in entries(directory)?.iter().filter(|path| path.is_dir()) {
        set_directory_modes(path)?;
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(told(parent))?;
    fs::write(path, content).map_err(told(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(told(path))
}

fn write_gzipped(path: &Path, content: &[u8]) -> Result<()> {
    let mut packed = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), flate2::Compression::best());
    let done = packed.write_all(content).and_then(|()| packed.finish());
    write(path, &done.map_err(told(path))?)
}

fn told(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

/// What a program prints, if it ends well.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}: {}", output.status, said.trim()));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{name}: {error}"))
}
