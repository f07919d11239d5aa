//! A cloud that is away.

use super::*;

#[tokio::test]
async fn a_service_that_is_away_is_said_to_be_and_the_work_goes_on_when_it_is_back() {
    let Some(mut cloud) = Cloud::start("away", &[Service::Glance]) else { return };
    let driver = driver(&cloud).await;
    let mut there = driver.reachable().unwrap();
    until("it is there", async || *there.borrow_and_update() == Some(true)).await;
    let mut replica = replica("away");
    cloud.kill(Service::Glance);
    let error = apply(&driver, &replica, &image("away")).await.unwrap_err();
    assert!(matches!(error, DriverError::Unavailable { .. }), "{error:?}");
    cloud.kill(Service::Keystone);
    assert!(driver.observe(&Replica { local_id: Some("image/x".to_owned()), ..replica.clone() }).await.is_err());
    until("it is away", async || *there.borrow_and_update() == Some(false)).await;
    cloud.start_again(Service::Keystone);
    cloud.start_again(Service::Glance);
    until("it is back", async || *there.borrow_and_update() == Some(true)).await;
    made(&driver, &mut replica, &image("away")).await;
    assert_eq!(count(&cloud, Service::Glance, "images", "away"), 1);
}
