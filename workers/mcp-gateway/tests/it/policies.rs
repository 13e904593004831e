//! Every route of a whole hub has a policy: the hub's own, the gateway's, the mesh's and those at `/mcp`, assembled as
//! the program does.

use cogo::hub::Policies;

use crate::mesh::site::Site;

#[tokio::test]
async fn every_route_of_a_whole_hub_has_a_policy_and_every_policy_a_route() {
    let site = Site::new().await;
    let policies = Policies::default();
    assert!(site.routes.len() > 40, "{:?}", site.routes);
    let uncovered = policies.uncovered(&site.routes);
    assert!(uncovered.is_empty(), "add them to configs/route_policies.json: {uncovered:?}");
    let unserved = policies.unserved(&site.routes);
    assert!(
        unserved.is_empty(),
        "configs/route_policies.json names what there is not: {unserved:?}"
    );
}

/// One that is taken away is missed: the check can fail.
#[tokio::test]
async fn a_route_without_a_policy_is_found_whichever_it_is() {
    let site = Site::new().await;
    for route in &site.routes {
        let mut policies = Policies::default();
        policies.routes.retain(|policy| policy.path != route.path);
        assert!(policies.uncovered(&site.routes).contains(route), "{route}");
    }
    let served = Policies::default();
    assert!(served.unserved(&site.routes[1..]).contains(&site.routes[0].to_string()));
}
