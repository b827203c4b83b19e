//! Prints profiles. Touches standard output.

use common::text::bytes;

use super::words::when;
use super::{Screen, print_line, print_table, table};
use crate::api::shapes::{ProfileShown, Wish};
use crate::fault::Fault;

impl Screen {
    /// Prints profiles as a table, one line each.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn profiles(&self, profiles: &[ProfileShown]) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(&profiles);
        }
        let mut rows = table(&["NAME", "IMAGE", "MACHINES", "HOOKS", "ADDED", "BY"]);
        for ProfileShown { name, added, by, wish, .. } in profiles {
            let hooks: Vec<&str> = wish.hooks.iter().map(|hook| hook.name.as_str()).collect();
            let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            rows.add_row([
                name.clone(),
                wish.image.clone(),
                or_dash(wish.machines.clone()),
                or_dash(hooks.join(" ")),
                when(*added),
                by.clone(),
            ]);
        }
        print_table(&rows)
    }

    /// Prints a profile.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn profile(&self, profile: &ProfileShown) -> Result<(), Fault> {
        if self.wants_json() {
            return self.json(profile);
        }
        let Wish { image, machines, hooks, .. } = &profile.wish;
        print_line(&format!("{}, added {} by {}", profile.name, when(profile.added), profile.by))?;
        print_line(&format!("image       {image}"))?;
        let machines = if machines.is_empty() { "those that an order names" } else { machines };
        print_line(&format!("machines    {machines}"))?;
        print_line(&format!("each        {}", profile.wish))?;
        hooks.iter().try_for_each(|hook| {
            print_line(&format!("hook        {}, {}", hook.name, bytes(hook.bytes as u64)))
        })
    }
}
