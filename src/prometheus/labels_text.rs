//! A label set in one string, in a buffer that the next one uses again.

/// Labels as they came, which from Prometheus is in the order of names.
///
/// All text is in one reused string: it is checked for UTF-8 once and then compared and encoded as
/// often as needed, and no label has an allocation of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelsText {
    text: String,
    /// Ends of name and value in `text`.
    ends: Vec<(usize, usize)>,
}

impl LabelsText {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, value_end)| {
            let name = self.text.get(start..name_end).unwrap_or_default();
            let value = self.text.get(name_end..value_end).unwrap_or_default();
            start = value_end;
            (name, value)
        })
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all names and values.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Whether the names ascend strictly.
    pub fn is_sorted(&self) -> bool {
        self.iter().is_sorted_by(|a, b| a.0 < b.0)
    }

    /// Takes the place of `self`'s content: `own` and `added` together, both sorted by name.
    /// Returns the name that stands in both, where one does; `self` is of no use then.
    pub fn merge<'a>(&mut self, own: &Self, added: &'a [(String, String)]) -> Option<&'a str> {
        self.clear();
        let mut added = added.iter().peekable();
        for (name, value) in own.iter() {
            while let Some((before, put)) = added.next_if(|(added, _)| added.as_str() < name) {
                self.push(before, put);
            }
            if let Some((twice, _)) = added.next_if(|(added, _)| added == name) {
                return Some(twice);
            }
            self.push(name, value);
        }
        for (name, value) in added {
            self.push(name, value);
        }
        None
    }

    /// Puts the names in order; false where one stands twice.
    pub(super) fn sort(&mut self) -> bool {
        let mut owned: Vec<(String, String)> = self
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        owned.sort();
        self.clear();
        for (name, value) in &owned {
            self.push(name, value);
        }
        self.is_sorted()
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    pub(super) fn push(&mut self, name: &str, value: &str) {
        self.push_name(name);
        self.push_value(value);
    }

    pub(super) fn push_name(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push((self.text.len(), self.text.len()));
    }

    pub(super) fn push_value(&mut self, value: &str) {
        self.text.push_str(value);
        if let Some((_, value_end)) = self.ends.last_mut() {
            *value_end = self.text.len();
        }
    }
}
