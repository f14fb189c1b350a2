//! Pages of the documentation, taken apart: fences, tables, code spans, headings, links.

use std::fs;
use std::path::{Path, PathBuf};

/// A text in Markdown.
pub(super) struct Page {
    /// Its path below the repository.
    pub(super) path: String,
    pub(super) text: String,
}

/// A block of code between two lines of three backticks.
pub(super) struct Fence {
    /// Page and line, for messages.
    pub(super) place: String,
    /// What stands behind the opening backticks.
    pub(super) info: String,
    /// The lines in between, without the indentation of the opening ones.
    pub(super) text: String,
}

pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All pages below `docs/`.
pub(super) fn pages() -> Vec<Page> {
    let mut names: Vec<_> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "md"))
        .collect();
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    let pages = names.iter().map(|name| Page::read(&format!("docs/{name}")));
    pages.collect()
}

impl Page {
    pub(super) fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        Self {
            path: path.to_owned(),
            text,
        }
    }

    /// The fences, and everything else with the fences' lines left empty.
    fn split(&self) -> (Vec<Fence>, String) {
        let (mut fences, mut prose) = (Vec::<Fence>::new(), String::new());
        let mut open: Option<(usize, Fence)> = None;
        for (number, line) in self.text.lines().enumerate() {
            let bare = line.trim_start();
            match (&mut open, bare.strip_prefix("```")) {
                (None, Some(info)) => {
                    let fence = Fence {
                        place: format!("{}:{}", self.path, number + 1),
                        info: info.trim().to_owned(),
                        text: String::new(),
                    };
                    open = Some((line.len() - bare.len(), fence));
                }
                (Some(_), Some(rest)) => {
                    assert_eq!(rest, "", "{}:{}", self.path, number + 1);
                    fences.extend(open.take().map(|(_, fence)| fence));
                }
                (Some((indent, fence)), None) => {
                    let at = (*indent).min(line.len() - bare.len());
                    fence.text.push_str(&line[at..]);
                    fence.text.push('\n');
                }
                (None, None) => prose.push_str(line),
            }
            prose.push('\n');
        }
        assert!(open.is_none(), "{}: a fence is not closed", self.path);
        (fences, prose)
    }

    pub(super) fn fences(&self) -> Vec<Fence> {
        self.split().0
    }

    /// What stands between single backticks, outside of fences, with its line.
    pub(super) fn spans(&self) -> Vec<(String, String)> {
        let prose = self.split().1;
        let mut spans = Vec::new();
        for (number, line) in prose.lines().enumerate() {
            let pieces: Vec<&str> = line.split('`').collect();
            let place = format!("{}:{}", self.path, number + 1);
            assert!(
                pieces.len() % 2 == 1,
                "{place}: a code span goes on in the next line"
            );
            let inside = pieces.iter().skip(1).step_by(2);
            spans.extend(inside.map(|span| (place.clone(), (*span).to_owned())));
        }
        spans
    }

    /// The rows of all tables whose heading has these cells.
    pub(super) fn rows(&self, heading: &[&str]) -> Vec<Vec<String>> {
        let prose = self.split().1;
        let (mut rows, mut inside) = (Vec::new(), false);
        for line in prose.lines() {
            let cells = cells(line);
            match cells {
                None => inside = false,
                Some(cells) if cells == heading => inside = true,
                Some(cells) if inside && !line.starts_with("|---") => {
                    assert_eq!(cells.len(), heading.len(), "{}: {line}", self.path);
                    rows.push(cells);
                }
                Some(_) => {}
            }
        }
        rows
    }

    /// What `#…` may name: its headings as GitHub writes them.
    pub(super) fn anchors(&self) -> Vec<String> {
        let prose = self.split().1;
        let headings = prose.lines().filter_map(|line| {
            let text = line.trim_start_matches('#');
            text.strip_prefix(' ').filter(|_| text.len() < line.len())
        });
        headings.map(anchor).collect()
    }

    /// Where its links lead.
    pub(super) fn links(&self) -> Vec<String> {
        let prose = self.split().1;
        let after = prose.split("](").skip(1);
        after
            .filter_map(|rest| rest.split_once(')').map(|(target, _)| target.to_owned()))
            .collect()
    }
}

/// The cells of a line of a table; code spans are not cut.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
    let (mut cells, mut cell, mut in_code) = (Vec::new(), String::new(), false);
    for c in inner.chars() {
        match c {
            '|' if !in_code => cells.push(std::mem::take(&mut cell)),
            _ => {
                in_code ^= c == '`';
                cell.push(c);
            }
        }
    }
    cells.push(cell);
    Some(cells.iter().map(|cell| cell.trim().to_owned()).collect())
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

/// The content of a cell that is one code span.
pub(super) fn code(cell: &str) -> &str {
    let inner = cell
        .strip_prefix('`')
        .and_then(|rest| rest.strip_suffix('`'));
    inner.unwrap_or_else(|| panic!("{cell} is no code span"))
}

#[test]
fn a_page_is_taken_apart() {
    let text = "# A page\n\n| A | B |\n|---|---|\n| `x|y` | z |\n\n- item\n\n  ```sh service\n  \
                one \\\n    two\n  ```\n\nSee [b](b.md#c-d) and `code`.\n";
    let page = Page {
        path: "p.md".to_owned(),
        text: text.to_owned(),
    };
    let fences = page.fences();
    assert_eq!(fences.len(), 1);
    assert_eq!(fences[0].place, "p.md:9");
    assert_eq!(fences[0].info, "sh service");
    assert_eq!(fences[0].text, "one \\\n  two\n");
    assert_eq!(page.rows(&["A", "B"]), [["`x|y`", "z"]]);
    assert_eq!(page.rows(&["A", "C"]), Vec::<Vec<String>>::new());
    assert_eq!(page.anchors(), ["a-page"]);
    assert_eq!(page.links(), ["b.md#c-d"]);
    let spans: Vec<_> = page.spans().into_iter().map(|(_, span)| span).collect();
    assert_eq!(spans, ["x|y", "code"]);
    assert_eq!(
        anchor("TLS: seccomp and io_uring"),
        "tls-seccomp-and-io_uring"
    );
}
