//! Alias checks: the worst of another service's or node's checks, in Consul's words.

use super::plan::{Finding, OUTPUT_MAX_SIZE};
use crate::store::model::{Check, Status};

/// Evaluates an alias of `service` (empty: the node itself) on `node` (empty: our own) over the checks of that node.
/// `exists` tells whether the service is registered there.
pub fn evaluate<'a>(
    node: &str,
    service: &str,
    exists: bool,
    checks: impl Iterator<Item = &'a Check>,
) -> Finding {
    let mut found = exists || service.is_empty();
    let mut finding = Finding::passing("No checks found.");
    for check in checks {
        if !check.service_id.is_empty() && check.service_id != service {
            continue;
        }
        found = true;
        match check.status {
            Status::Critical => return failing(check),
            Status::Warning => finding = failing(check),
            Status::Passing if finding.status == Status::Passing => {
                finding = Finding::passing("All checks passing.");
            }
            Status::Passing => {}
        }
    }
    if found {
        return finding;
    }
    Finding::critical(format!("Service {service} could not be found on node {node}"))
}

/// What an alias that is among what it follows makes of the `others`' finding and its own `row`. It does not quote its own
/// text: that would grow with every change of anything.
pub fn with_itself(others: Finding, row: &Check) -> Finding {
    if row.status <= others.status {
        return others;
    }
    failing(&Check { output: String::new(), ..row.clone() })
}

/// The text is cut at its end: aliases that quote each other in a circle come to rest there.
fn failing(check: &Check) -> Finding {
    let mut output = format!("Aliased check \"{}\" failing: {}", check.name, check.output);
    output.truncate(output.floor_char_boundary(OUTPUT_MAX_SIZE));
    Finding { status: check.status, output }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, service: &str, status: Status, output: &str) -> Check {
        Check {
            name: name.into(),
            service_id: service.into(),
            status,
            output: output.into(),
            ..Check::default()
        }
    }

    #[test]
    fn the_worst_check_is_quoted() {
        let checks = [
            check("ok", "web", Status::Passing, ""),
            check("slow", "web", Status::Warning, "hm"),
            check("other", "db", Status::Critical, "no"),
        ];
        let finding = evaluate("", "web", true, checks.iter());
        assert_eq!(finding.status, Status::Warning);
        assert_eq!(finding.output, "Aliased check \"slow\" failing: hm");
        let finding = evaluate("", "web", true, checks[..1].iter());
        assert_eq!(finding, Finding::passing("All checks passing."));
    }

    #[test]
    fn a_service_without_checks_passes_and_an_absent_one_does_not() {
        assert_eq!(evaluate("", "web", true, [].iter()), Finding::passing("No checks found."));
        let finding = evaluate("", "not-there", false, [].iter());
        assert_eq!(finding, Finding::critical("Service not-there could not be found on node "));
    }

    /// Two aliases of each other quoted each other's output, longer with every change of anything.
    #[test]
    fn aliases_in_a_circle_come_to_rest() {
        let mut output = "no".to_owned();
        for _ in 0..1000 {
            let seen = [check("é", "web", Status::Critical, &output)];
            output = evaluate("", "web", true, seen.iter()).output;
        }
        assert!(output.len() <= OUTPUT_MAX_SIZE);
        let seen = [check("é", "web", Status::Critical, &output)];
        assert_eq!(evaluate("", "web", true, seen.iter()).output, output);
    }

    #[test]
    fn checks_of_the_node_count_for_every_service() {
        let checks = [check("disk", "", Status::Critical, "full")];
        assert_eq!(evaluate("", "web", true, checks.iter()).output, "Aliased check \"disk\" failing: full");
    }
}
