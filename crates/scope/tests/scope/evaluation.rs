//! What scopes mean.

use std::{collections::BTreeSet, time::Duration};

use khufu_scope::{Evaluation, Mode, Place, SiteView, State, View, evaluate, parse};

/// Sites of four towns and a cloud, seen from paris.
///
/// | site   | zone | from paris | load | other    |
/// |--------|------|------------|------|----------|
/// | paris  | west |            | 2    | gpu      |
/// | rennes | west | 10 ms      | 1    |          |
/// | nantes | west | 10 ms      | 0.5  |          |
/// | lyon   | east | 20 ms      | 0    | gpu      |
/// | cloud  |      | unknown    | 0    |          |
fn view() -> View {
    let mut view = View { here: "paris".to_owned(), ..View::default() };
    let sites = [
        ("paris", Some("west"), true, 2.0),
        ("rennes", Some("west"), false, 1.0),
        ("nantes", Some("west"), false, 0.5),
        ("lyon", Some("east"), true, 0.0),
        ("cloud", None, false, 0.0),
    ];
    for (name, zone, gpu, load) in sites {
        let mut site = SiteView { load, ..SiteView::default() };
        site.labels.extend(zone.map(|zone| ("zone".to_owned(), zone.to_owned())));
        site.labels.extend(gpu.then(|| ("gpu".to_owned(), "yes".to_owned())));
        view.sites.insert(name.to_owned(), site);
    }
    let mut measured = |from: &str, to: &str, ms| {
        view.sites.get_mut(from).unwrap().rtt.insert(to.to_owned(), Duration::from_millis(ms));
    };
    measured("paris", "rennes", 10);
    // Measured from the other end only.
    measured("nantes", "paris", 10);
    measured("paris", "lyon", 20);
    measured("lyon", "paris", 500);
    measured("rennes", "nantes", 3);
    view
}

fn with(states: &[(&str, State)]) -> View {
    let mut view = view();
    for (site, state) in states {
        view.sites.get_mut(*site).unwrap().state = *state;
    }
    view
}

fn of(text: &str, view: &View) -> Evaluation {
    let scope = parse(text).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
    evaluate(&scope, view).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

fn only(text: &str, view: &View) -> Place {
    let mut places = of(text, view).places;
    assert_eq!(places.len(), 1, "{text}");
    places.remove(0)
}

fn set(names: &str) -> BTreeSet<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn expressions_stand_for_sets_of_sites() {
    for (text, sites) in [
        ("paris", "paris"),
        ("here", "paris"),
        ("paris & rennes & paris", "paris rennes"),
        ("all", "cloud lyon nantes paris rennes"),
        ("all & !paris", "cloud lyon nantes rennes"),
        ("!paris & all", "cloud lyon nantes rennes"),
        ("!paris", "cloud lyon nantes rennes"),
        ("!paris & !cloud", "lyon nantes rennes"),
        ("!(paris & cloud)", "lyon nantes rennes"),
        ("!(!paris)", "paris"),
        ("paris & rennes & !rennes", "paris"),
        ("paris & !lyon", "paris"),
        ("[zone=west]", "nantes paris rennes"),
        ("[zone=west, gpu=yes]", "paris"),
        ("[zone!=west]", "cloud lyon"),
        ("[gpu=yes] & [zone=west] & !here", "lyon nantes rennes"),
        ("[zone=north] & cloud", "cloud"),
        ("around(paris, 10ms)", "nantes paris rennes"),
        ("around(paris, 9.999ms)", "paris"),
        ("around(here, 20ms)", "lyon nantes paris rennes"),
        // Each end believes its own measurement first.
        ("around(lyon, 400ms)", "lyon"),
        ("around(nantes, 3ms)", "nantes rennes"),
        ("around(cloud, 100m)", "cloud"),
        ("around: paris, 10ms", "nantes paris rennes"),
        ("(paris | rennes) & lyon", "lyon paris"),
    ] {
        let place = only(text, &view());
        assert_eq!((place.sites, place.mode, place.prime), (set(sites), Mode::Replicate, None), "{text}");
    }
}

#[test]
fn some_are_picked_by_state_then_distance_then_load_then_name() {
    let up = view();
    assert_eq!(only("1 of (all)", &up).sites, set("paris"));
    // Equally far: the load decides.
    assert_eq!(only("2 of (all)", &up).sites, set("paris nantes"));
    assert_eq!(only("4 of (all)", &up).sites, set("paris nantes rennes lyon"));
    assert_eq!(only("1 of (rennes & cloud)", &up).sites, set("rennes"), "what was never measured is last");
    assert_eq!(only("1 of ([gpu=yes] & !here)", &up).sites, set("lyon"));

    assert_eq!(only("2 of (all)", &with(&[("nantes", State::Suspect)])).sites, set("paris rennes"));
    // What was chosen before is kept, unless it answers less well.
    let mut before = view();
    for site in ["lyon", "cloud"] {
        before.sites.get_mut(site).unwrap().held = true;
    }
    assert_eq!(only("2 of (all)", &before).sites, set("lyon cloud"));
    before.sites.get_mut("cloud").unwrap().state = State::Suspect;
    assert_eq!(only("2 of (all)", &before).sites, set("lyon paris"));
    assert_eq!(
        only("1 of (rennes & lyon & cloud)", &with(&[("rennes", State::Suspect), ("lyon", State::Down)])).sites,
        set("cloud")
    );
    assert_eq!(
        only("1 of (rennes & lyon)", &with(&[("rennes", State::Down), ("lyon", State::Suspect)])).sites,
        set("lyon")
    );
    // Too few that are up: down ones make up the number.
    assert_eq!(only("2 of (rennes & lyon)", &with(&[("rennes", State::Down)])).sites, set("rennes lyon"));

    let mut level = view();
    for site in level.sites.values_mut() {
        *site = SiteView::default();
    }
    assert_eq!(only("2 of (rennes & nantes & lyon)", &level).sites, set("lyon nantes"));
    level.sites.get_mut("lyon").unwrap().load = f64::NAN;
    level.sites.get_mut("nantes").unwrap().load = -0.0;
    assert_eq!(only("1 of (rennes & nantes & lyon)", &level).sites, set("nantes"));
    assert_eq!(only("2 of (rennes & nantes & lyon)", &level).sites, set("nantes rennes"));
}

#[test]
fn of_alternatives_the_first_without_a_site_that_is_down_is_taken() {
    let text = "paris & rennes | nantes; lyon || cloud";
    let place = only(text, &view());
    assert_eq!(place.sites, set("paris rennes"));
    assert_eq!(place.fallbacks, [set("nantes"), set("lyon"), set("cloud")]);

    let place = only(text, &with(&[("rennes", State::Suspect)]));
    assert_eq!(place.sites, set("paris rennes"), "suspect is not down");

    let place = only(text, &with(&[("rennes", State::Down), ("nantes", State::Down)]));
    assert_eq!((place.sites, place.fallbacks), (set("lyon"), vec![set("cloud")]));
    assert_eq!(
        place.reasons,
        [
            "`paris & rennes` is passed over: rennes is down",
            "`nantes` is passed over: nantes is down",
            "`lyon` is taken: none of its sites is down",
            "lyon is written in the scope",
        ]
    );

    let down = ["paris", "rennes", "nantes", "lyon", "cloud"].map(|site| (site, State::Down));
    let place = only(text, &with(&down));
    assert_eq!(place.sites, set("paris rennes"), "the first, if none is better off");
    assert_eq!(place.fallbacks.len(), 3);
    assert_eq!(
        place.reasons[3..],
        [
            "`cloud` is passed over: cloud is down",
            "`paris & rennes` is taken all the same: none works better",
            "paris and rennes are written in the scope",
            "paris and rennes are down, and stay in: silence takes no site out",
        ]
    );
}

#[test]
fn alternatives_without_a_value_are_passed_over() {
    let place = only("[zone=north] | 2 of ([zone=east]) | lyon", &view());
    assert_eq!(place.sites, set("lyon"));
    assert_eq!(
        place.reasons[..2],
        [
            "`[zone=north]` is passed over: no site matches",
            "`2 of ([zone=east])` is passed over: 2 sites are to be chosen, and only 1 match",
        ]
    );
    let place = only("lyon | [zone=north] | cloud", &view());
    assert_eq!(place.fallbacks, [set("cloud")]);
    let place = only("(paris | [zone=north]) | cloud", &with(&[("paris", State::Down)]));
    assert_eq!(place.sites, set("cloud"));
    assert_eq!(only("cloud & (paris | rennes)", &with(&[("paris", State::Down)])).sites, set("cloud rennes"));
    let all_down = with(&[("paris", State::Down), ("rennes", State::Down)]);
    assert_eq!(only("cloud & (paris | rennes)", &all_down).sites, set("cloud paris"));
}

#[test]
fn silence_takes_no_site_out() {
    let down = with(&[("rennes", State::Down), ("lyon", State::Down)]);
    assert_eq!(only("paris & rennes", &down).sites, set("paris rennes"));
    assert_eq!(only("all", &down).sites.len(), 5);
    assert_eq!(only("[gpu=yes]", &down).sites, set("paris lyon"));
    assert_eq!(only("around(paris, 20ms)", &down).sites, set("paris nantes rennes lyon"));
    assert!(only("paris & rennes", &down).reasons.iter().any(|reason| reason.starts_with("rennes is down, and stays")));
}

#[test]
fn what_spans_sites_has_a_prime() {
    for (text, sites, prime) in [
        ("rennes % paris", "paris rennes", "rennes"),
        ("rennes % paris, prime: paris", "paris rennes", "paris"),
        ("prime: here, rennes % paris", "paris rennes", "paris"),
        ("rennes & lyon % paris", "lyon paris rennes", "rennes"),
        ("(rennes | lyon) % paris", "paris rennes", "rennes"),
        // Nobody is written first: the site that placement prefers.
        ("[zone=west] % lyon", "lyon nantes paris rennes", "paris"),
        ("2 of (rennes & nantes & cloud) % lyon", "lyon nantes rennes", "nantes"),
        ("around(rennes, 3ms) % lyon", "lyon nantes rennes", "rennes"),
        ("rennes & !rennes & lyon % paris", "lyon paris", "lyon"),
        ("(rennes % paris) % lyon", "lyon paris rennes", "rennes"),
        ("rennes % rennes", "rennes", "rennes"),
    ] {
        let place = only(text, &view());
        assert_eq!((place.sites, place.mode, place.prime.as_deref()), (set(sites), Mode::Cross, Some(prime)), "{text}");
    }
    // A prime that is down still holds what it holds.
    assert_eq!(only("rennes % paris", &with(&[("rennes", State::Down)])).prime.as_deref(), Some("rennes"));
}

#[test]
fn a_prime_belongs_to_every_place_that_spans_its_site() {
    let text = "image: paris % rennes, compute: lyon % rennes, network: lyon % cloud, prime: rennes";
    let primes: Vec<_> = of(text, &view()).places.into_iter().map(|place| place.prime).collect();
    assert_eq!(primes, [Some("rennes".to_owned()), Some("rennes".to_owned()), Some("lyon".to_owned())]);

    // The prime of an alternative is no mistake while another one is taken.
    let text = "paris % rennes | lyon % cloud | nantes, prime: cloud, prime: rennes";
    assert_eq!(only(text, &view()).prime.as_deref(), Some("rennes"));
    let place = only(text, &with(&[("paris", State::Down)]));
    assert_eq!((place.sites, place.prime.as_deref()), (set("lyon cloud"), Some("cloud")));
    let place = only(text, &with(&[("paris", State::Down), ("lyon", State::Down)]));
    assert_eq!((place.mode, place.prime), (Mode::Replicate, None));
    // Here and the name of here are one site.
    assert_eq!(only("paris % rennes, prime: paris, prime: here", &view()).prime.as_deref(), Some("paris"));
}

#[test]
fn services_share() {
    let evaluation = of("image: rennes, compute: here & lyon, cloud", &view());
    assert_eq!(evaluation.for_service("image").unwrap().sites, set("rennes"));
    assert_eq!(evaluation.for_service("compute").unwrap().sites, set("lyon paris"));
    assert_eq!(evaluation.for_service("network").unwrap().sites, set("cloud"), "the place without a service");
    assert!(evaluation.sites().into_iter().eq(["cloud", "lyon", "paris", "rennes"]));
    let services: Vec<_> = evaluation.places.iter().map(|place| place.service.as_deref()).collect();
    assert_eq!(services, [Some("image"), Some("compute"), None]);
    assert!(of("image: rennes", &view()).for_service("network").is_none());
}

#[test]
fn every_decision_has_its_reason() {
    let down = with(&[("lyon", State::Down)]);
    for (text, reasons) in [
        (
            "here & lyon",
            vec![
                "`here` is paris",
                "lyon is written in the scope",
                "lyon is down, and stays in: silence takes no site out",
            ],
        ),
        (
            "all & !here",
            vec![
                "`all` is paris, nantes, rennes, cloud and lyon",
                "`here` is paris",
                "`!here` takes out paris",
                "lyon is down, and stays in: silence takes no site out",
            ],
        ),
        ("[zone=west]", vec!["`[zone=west]` matches paris, nantes and rennes"]),
        (
            "1 of (rennes & lyon & cloud)",
            vec![
                "`1 of (rennes & lyon & cloud)` takes rennes (alive, 10ms away, load 1.00), before cloud (alive, distance unknown, load 0.00) and lyon (down, 20ms away, load 0.00)",
            ],
        ),
        (
            "around(here, 10ms)",
            vec![
                "`around(here, 10ms)` is paris itself, and nantes (10ms) and rennes (10ms); too far: lyon (20ms); never measured: cloud",
            ],
        ),
        (
            "rennes % nantes, prime: nantes",
            vec![
                "nantes and rennes are written in the scope",
                "nantes is the prime, which holds the resource: `prime: nantes`",
            ],
        ),
        (
            "rennes % nantes",
            vec![
                "nantes and rennes are written in the scope",
                "rennes is the prime, which holds the resource: it comes first",
            ],
        ),
    ] {
        assert_eq!(only(text, &down).reasons, reasons, "{text}");
    }
    let mut crowd = view();
    for number in 0..200 {
        crowd.sites.insert(format!("site-{number}"), SiteView::default());
    }
    assert!(only("all", &crowd).reasons[0].ends_with(" and 193 more"), "{:?}", only("all", &crowd).reasons);
}

#[test]
fn many_sites_and_much_text_do_not_take_long() {
    let mut view = View { here: "site-0".to_owned(), ..View::default() };
    for number in 0..500_u64 {
        let rtt =
            (0..500).map(|other| (format!("site-{other}"), Duration::from_micros((number * other * 7919) % 100_000)));
        view.sites.insert(format!("site-{number}"), SiteView { rtt: rtt.collect(), ..SiteView::default() });
    }
    for unit in ["all&", "1 of(all)|", "1 of(all)&", "around(here,5ms)&", "[a!=b]|", "x:all&"] {
        let text = format!("{}all", unit.repeat(2000 / unit.len()));
        let started = std::time::Instant::now();
        if let Ok(scope) = parse(&text) {
            let evaluation = evaluate(&scope, &view).unwrap();
            let reasons: usize = evaluation.places.iter().flat_map(|place| &place.reasons).map(String::len).sum();
            assert!(reasons < 1 << 20, "{unit}: {reasons} bytes of reasons");
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{unit} took {:?}", started.elapsed());
    }
}
