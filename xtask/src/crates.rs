//! Which crate may depend on which.

use crate::workspace::{Crate, Workspace};

/// Dependencies point from right to left only.
const ORDER: [&str; 8] = ["core", "opt", "rl", "lm", "apps", "dash", "cli", "py"];

/// The page over run directories reads files; it must work without what wrote them.
const DASH_MAY_USE: &str = "core";

/// Libraries that stay behind one wall, with the directories that may name them.
pub(crate) const RESERVED: [(&str, &[&str]); 5] = [
    ("gemm", &["crates/saddlepoint-lm/src/engine"]),
    ("pulp", &["crates/saddlepoint-lm/src/engine", "crates/saddlepoint-opt/src"]),
    ("faer", &["crates/saddlepoint-opt/src/linalg"]),
    ("tokio", &["crates/saddlepoint-dash", "crates/saddlepoint-cli"]),
    ("axum", &["crates/saddlepoint-dash", "crates/saddlepoint-cli"]),
];

pub(crate) fn problems(workspace: &Workspace) -> Vec<String> {
    workspace.crates.iter().flat_map(|each| [order(each), walls(each)].concat()).collect()
}

/// The part of a crate's name after `saddlepoint-`.
fn layer(name: &str) -> Option<&str> {
    name.strip_prefix("saddlepoint-")
}

/// The place of a crate in the order.
pub(crate) fn rank(each: &Crate) -> Option<usize> {
    let own = layer(&each.name)?;
    ORDER.iter().position(|&known| known == own)
}

fn order(each: &Crate) -> Vec<String> {
    let Some(own) = layer(&each.name) else { return Vec::new() };
    let Some(rank) = rank(each) else {
        return vec![format!("{}: not in the order of crates; add it to xtask/src/crates.rs", each.name)];
    };
    let used = each.dependencies.iter().filter_map(|dependency| layer(&dependency.name));
    let allowed = |used: &str| ORDER[..rank].contains(&used) && (own != "dash" || used == DASH_MAY_USE);
    used.filter(|used| !allowed(used))
        .map(|used| {
            format!("{}: must not depend on saddlepoint-{used} (order: {})", each.name, ORDER.join(" < "))
        })
        .collect()
}

fn walls(each: &Crate) -> Vec<String> {
    let home = format!("crates/{}", each.name);
    let outside = |name: &str| {
        let (library, directories) = RESERVED.iter().find(|(library, _)| *library == name)?;
        let owner = directories.iter().any(|directory| directory.starts_with(&home));
        (!owner).then(|| {
            format!("{}: must not depend on {library}, kept to {}", each.name, directories.join(", "))
        })
    };
    each.dependencies.iter().filter_map(|dependency| outside(&dependency.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn of(name: &str, dependencies: &[&str]) -> Vec<String> {
        let dependencies = dependencies.iter().map(|&name| Dependency { name: name.into() }).collect();
        let each = Crate { name: name.into(), dependencies, ..Crate::default() };
        [order(&each), walls(&each)].concat()
    }

    #[test]
    fn dependencies_point_one_way() {
        assert!(of("saddlepoint-lm", &["saddlepoint-core", "saddlepoint-opt", "serde"]).is_empty());
        let told = "saddlepoint-opt: must not depend on saddlepoint-lm \
                    (order: core < opt < rl < lm < apps < dash < cli < py)";
        assert_eq!(of("saddlepoint-opt", &["saddlepoint-lm"]), [told]);
        assert_eq!(of("saddlepoint-dash", &["saddlepoint-core", "saddlepoint-lm"]).len(), 1);
        assert_eq!(of("saddlepoint-core", &["saddlepoint-core"]).len(), 1);
        let told = "saddlepoint-new: not in the order of crates; add it to xtask/src/crates.rs";
        assert_eq!(of("saddlepoint-new", &[]), [told]);
        assert!(of("xtask", &["saddlepoint-lm"]).is_empty());
    }

    #[test]
    fn reserved_libraries_stay_behind_their_wall() {
        assert!(of("saddlepoint-lm", &["pulp"]).is_empty());
        let told = "saddlepoint-cli: must not depend on gemm, kept to crates/saddlepoint-lm/src/engine";
        assert_eq!(of("saddlepoint-cli", &["gemm", "tokio"]), [told]);
    }
}
