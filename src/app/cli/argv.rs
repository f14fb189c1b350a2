//! Words to `--name=value`: the manners of the reference's flag library, which clap does not have.
//!
//! Which flags exist, take a value or may be repeated is asked of the clap command, so that a flag
//! is declared once. What is read here (observed with the library, contract `cli.md` §1):
//! - global flags anywhere, a command's flags after its name, `--` ends flags;
//! - `--x` and `--no-x` for a bool, which takes no value: `--x=true` is a flag and a stray `true`;
//! - a flag that is no list may be given once;
//! - a command may take words that are no flags, and need some of them;
//! - `@path` stands for the lines of a file, without empty lines and those that begin with `#`.
//!
//! Laxer in one point: a separate value may begin with `-` and a digit (`--min-time -2h`).

use std::any::TypeId;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction};

use super::text::OptionalPath;
use crate::lifecycle::read_at_most;

/// Most words that a command line may have once its `@file`s are read: more than any real one, and
/// an end to a file that names itself.
const WORDS_MAX: usize = 4096;

/// Most bytes of one `@file`. A configuration document may be among its lines.
const ARGUMENTS_FILE_BYTES_MAX: u64 = 1 << 20;

/// The words make no command line. The messages are the flag library's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidArguments {
    /// A flag that does not exist, or not at this place.
    #[error("unknown long flag '{0}'")]
    UnknownLong(String),
    /// A one-letter flag other than `-h`.
    #[error("unknown short flag '{0}'")]
    UnknownShort(String),
    /// A flag at the end, or before another one, that wants a value.
    #[error("expected argument for flag '--{0}'")]
    NoValue(String),
    /// A flag that is no list and was given before.
    #[error("flag '{0}' cannot be repeated")]
    Repeated(String),
    /// A word after the command that belongs to nothing.
    #[error("unexpected {0}")]
    Unexpected(String),
    /// A word that the command can't do without.
    #[error("required argument '{0}' not provided")]
    Missing(String),
    /// The first word is no command.
    #[error("expected command but got {0:?}")]
    UnknownCommand(String),
    /// There is no command.
    #[error("command not specified")]
    NoCommand,
    /// The value of a flag that is not a path has bytes that are not UTF-8.
    #[error("value of flag '--{0}' is not valid UTF-8")]
    NotUtf8(String),
    /// A lone `@`.
    #[error("expected @ file to expand arguments from")]
    NoArgumentsFile,
    /// The `@file` cannot be opened.
    #[error("failed to open arguments file {path:?}")]
    OpenArgumentsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The `@file` cannot be read.
    #[error("failed to read arguments from {path:?}")]
    ReadArgumentsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The `@file` is not the text of some arguments.
    #[error("arguments file {path:?} is larger than {ARGUMENTS_FILE_BYTES_MAX} bytes")]
    HugeArgumentsFile {
        /// The file.
        path: PathBuf,
    },
    /// More words than any command line has: an `@file` that names itself.
    #[error("more than {WORDS_MAX} arguments; does an arguments file name itself?")]
    TooMany,
}

/// A command line of which every flag exists and has its value.
#[derive(Debug)]
pub(super) struct Normalized {
    /// The names of the command and of its own command, as far as they were given.
    pub(super) commands: Vec<String>,
    /// Help or version instead of the command.
    pub(super) request: Option<Request>,
    /// For clap: program, global flags, command, its flags; flags as `--name=value`.
    pub(super) words: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Help,
    Version,
}

/// What the words may hold at this point.
struct Flag {
    name: String,
    kind: Kind,
    is_list: bool,
    is_global: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Text,
    Path,
    Ask(Request),
}

/// Reads the words (without the program's name) against the built `command`.
pub(super) fn normalize(
    command: &clap::Command,
    words: impl Iterator<Item = OsString>,
) -> Result<Normalized, InvalidArguments> {
    Reader::new(command, words.collect()).read()
}

struct Reader<'a> {
    pending: VecDeque<OsString>,
    words_seen: usize,
    is_past_flags: bool,
    flags: Vec<Flag>,
    given: Vec<String>,
    /// The command that the words have led to so far; the program itself before the first.
    current: &'a clap::Command,
    commands: Vec<String>,
    request: Option<Request>,
    global_words: Vec<OsString>,
    command_words: Vec<OsString>,
    /// Words that are no flags and no commands, for a command that takes some.
    positional_words: Vec<OsString>,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn new(root: &'a clap::Command, pending: VecDeque<OsString>) -> Self {
        Self {
            current: root,
            pending,
            words_seen: 0,
            is_past_flags: false,
            flags: root.get_arguments().filter_map(Flag::of).collect(),
            given: Vec::new(),
            commands: Vec::new(),
            request: None,
            global_words: vec![OsString::from(root.get_name())],
            command_words: Vec::new(),
            positional_words: Vec::new(),
        }
    }

    fn read(mut self) -> Result<Normalized, InvalidArguments> {
        while let Some(word) = self.next_word()? {
            let bytes = word.as_bytes();
            if self.is_past_flags || !bytes.starts_with(b"-") || bytes == b"-" {
                self.argument(&word)?;
            } else if bytes == b"--" {
                self.is_past_flags = true;
            } else if let Some(long) = bytes.strip_prefix(b"--") {
                self.long_flag(long)?;
            } else {
                self.short_flag(&word)?;
            }
        }
        if self.current.has_subcommands() && self.request.is_none() {
            return Err(InvalidArguments::NoCommand);
        }
        if let (Some(missing), None) = (self.missing_argument(), self.request) {
            return Err(InvalidArguments::Missing(missing));
        }
        let mut words = self.global_words;
        words.extend(self.commands.iter().map(OsString::from));
        words.extend(self.command_words);
        if !self.positional_words.is_empty() {
            words.push(OsString::from("--"));
            words.extend(self.positional_words);
        }
        Ok(Normalized {
            commands: self.commands,
            request: self.request,
            words,
        })
    }

    /// The next word, with `@file` words replaced by the file's lines.
    fn next_word(&mut self) -> Result<Option<OsString>, InvalidArguments> {
        while let Some(word) = self.pending.pop_front() {
            self.words_seen += 1;
            if self.words_seen > WORDS_MAX {
                return Err(InvalidArguments::TooMany);
            }
            match word.as_bytes().strip_prefix(b"@") {
                Some(path) if !self.is_past_flags => {
                    for line in arguments_in(Path::new(OsStr::from_bytes(path)))?
                        .into_iter()
                        .rev()
                    {
                        self.pending.push_front(line);
                    }
                }
                _ => return Ok(Some(word)),
            }
        }
        Ok(None)
    }

    fn argument(&mut self, word: &OsStr) -> Result<(), InvalidArguments> {
        if !self.current.has_subcommands() {
            let mut taken = self.current.get_positionals();
            let is_taken = taken.any(|arg| matches!(arg.get_action(), ArgAction::Append))
                || self.positional_words.len() < self.current.get_positionals().count();
            if !is_taken {
                return Err(InvalidArguments::Unexpected(shown(word)));
            }
            self.positional_words.push(word.to_owned());
            return Ok(());
        }
        if word == "help" && self.request.is_none() {
            self.request = Some(Request::Help);
            return Ok(());
        }
        let command = word
            .to_str()
            .and_then(|name| self.current.find_subcommand(name));
        let Some(command) = command else {
            return Err(InvalidArguments::UnknownCommand(shown(word)));
        };
        self.commands.push(command.get_name().to_owned());
        self.current = command;
        let of_command = command.get_arguments().filter(|arg| !arg.is_global_set());
        self.flags.extend(of_command.filter_map(Flag::of));
        Ok(())
    }

    /// The first word that the command needs and was not given, by the name that the help has.
    fn missing_argument(&self) -> Option<String> {
        let mut not_given = self
            .current
            .get_positionals()
            .skip(self.positional_words.len());
        let needed = not_given.find(|arg| arg.is_required_set())?;
        let names = needed.get_value_names().into_iter().flatten();
        Some(names.map(|name| name.as_str()).collect())
    }

    fn short_flag(&mut self, word: &OsStr) -> Result<(), InvalidArguments> {
        if word == "-h" {
            self.request.get_or_insert(Request::Help);
            return Ok(());
        }
        let letters = shown(word);
        Err(InvalidArguments::UnknownShort(
            letters.chars().take(2).collect(),
        ))
    }

    fn long_flag(&mut self, long: &[u8]) -> Result<(), InvalidArguments> {
        let equals = long.iter().position(|byte| *byte == b'=');
        let (name, value) = match equals {
            Some(at) => (
                &long[..at],
                Some(OsStr::from_bytes(&long[at + 1..]).to_owned()),
            ),
            None => (long, None),
        };
        let spelled = shown(OsStr::from_bytes(name));
        let unknown = || InvalidArguments::UnknownLong(format!("--{spelled}"));
        let known = |name: &str| self.flags.iter().position(|flag| flag.name == name);
        let (at, is_on) = match (known(&spelled), spelled.strip_prefix("no-")) {
            (Some(at), _) => (at, true),
            (None, Some(positive)) => (known(positive).ok_or_else(unknown)?, false),
            (None, None) => return Err(unknown()),
        };
        let (kind, is_list) = (self.flags[at].kind, self.flags[at].is_list);
        if !is_on && kind != Kind::Bool {
            return Err(unknown());
        }
        let name = self.flags[at].name.clone();
        let value = match kind {
            Kind::Ask(_) | Kind::Bool => {
                if let Some(value) = value {
                    return Err(InvalidArguments::Unexpected(shown(&value)));
                }
                OsString::from(if is_on { "true" } else { "false" })
            }
            Kind::Text | Kind::Path => self.value(&name, value)?,
        };
        if kind == Kind::Text && value.to_str().is_none() {
            return Err(InvalidArguments::NotUtf8(name));
        }
        if self.given.contains(&name) && !is_list {
            return Err(InvalidArguments::Repeated(name));
        }
        if let Kind::Ask(request) = kind {
            self.request.get_or_insert(request);
        } else {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            let words = if self.flags[at].is_global {
                &mut self.global_words
            } else {
                &mut self.command_words
            };
            words.push(word);
        }
        self.given.push(name);
        Ok(())
    }

    /// The value after `=`, else the next word unless that is a flag.
    fn value(
        &mut self,
        name: &str,
        after_equals: Option<OsString>,
    ) -> Result<OsString, InvalidArguments> {
        if let Some(value) = after_equals {
            return Ok(value);
        }
        match self.next_word()? {
            Some(word) if !is_flag(&word) => Ok(word),
            _ => Err(InvalidArguments::NoValue(name.to_owned())),
        }
    }
}

// === impl Flag ===

impl Flag {
    /// `None` for what has no long name.
    fn of(arg: &Arg) -> Option<Self> {
        let kind = match arg.get_action() {
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong => {
                Kind::Ask(Request::Help)
            }
            ArgAction::Version => Kind::Ask(Request::Version),
            _ => {
                let value = arg.get_value_parser().type_id();
                if value == TypeId::of::<bool>() {
                    Kind::Bool
                } else if value == TypeId::of::<PathBuf>() || value == TypeId::of::<OptionalPath>()
                {
                    Kind::Path
                } else {
                    Kind::Text
                }
            }
        };
        Some(Self {
            name: arg.get_long()?.to_owned(),
            kind,
            is_list: matches!(arg.get_action(), ArgAction::Append),
            is_global: arg.is_global_set(),
        })
    }
}

/// Whether a word is a flag rather than the value of the flag before it. Negative numbers and
/// durations are values.
fn is_flag(word: &OsStr) -> bool {
    match word.as_bytes() {
        [b'-', second, ..] => !second.is_ascii_digit() && *second != b'.',
        _ => false,
    }
}

fn shown(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}

fn arguments_in(path: &Path) -> Result<Vec<OsString>, InvalidArguments> {
    if path.as_os_str().is_empty() {
        return Err(InvalidArguments::NoArgumentsFile);
    }
    let path = || path.to_owned();
    let file = File::open(path()).map_err(|source| InvalidArguments::OpenArgumentsFile {
        path: path(),
        source,
    })?;
    let text = read_at_most(file, ARGUMENTS_FILE_BYTES_MAX).map_err(|source| {
        InvalidArguments::ReadArgumentsFile {
            path: path(),
            source,
        }
    })?;
    let text = text.ok_or_else(|| InvalidArguments::HugeArgumentsFile { path: path() })?;
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    Ok(lines
        .map(|line| OsString::from_vec(line.to_vec()))
        .collect())
}
