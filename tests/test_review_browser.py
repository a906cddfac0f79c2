"""The page of suspects in a browser: decisions by keyboard and mouse, filters, order, many suspects, odd names."""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _review_cases import chromium, made_cleaning, photos, served

from fastnoise.cleaning.decisions import read_decisions
from fastnoise.cleaning.review import DECISIONS, PAGE, ReviewServer

CLASSES = ("<script>window.hit = 1", 'a "quoted" cat', "dög 'n' ☃", "ordinary & co")
NAME = "naïve <b onfocus=hit()> {place:04} 'q' .jpg"
MANY = 1200


def made(root: Path, count: int) -> Path:
    """A cleaning with so many suspects, whose classes and files have the oddest names."""
    per_class = 4 + count // len(CLASSES)
    photos(root / "my photos", CLASSES, count, name=NAME)

    def true(path: Path) -> str:
        label, number = CLASSES.index(path.parent.name), int(path.name.split()[3]) % per_class
        return CLASSES[label if number < 4 else (label + 1) % len(CLASSES)]

    return made_cleaning(root / "my photos", root / "cleaned", true)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("cleaned"), 48)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def server(cleaned: Path) -> Iterator[ReviewServer]:
    (cleaned / DECISIONS).unlink(missing_ok=True)
    with served(cleaned) as found:
        yield found


def opened(driver: Any, address: str) -> None:
    """Open a page and wait until its script has run, which stands at its end."""
    driver.get(address)
    deadline = time.monotonic() + 100
    while not driver.execute_script('return !!document.getElementById("count")?.textContent'):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def shown(driver: Any) -> list[dict[str, str]]:
    """What the page holds of each card that it shows, in their order."""
    script = 'return [...document.querySelectorAll(".card")].filter(each=>!each.hidden).map(each=>({...each.dataset}))'
    found: list[dict[str, str]] = driver.execute_script(script)
    return found


def settled(driver: Any, count: str) -> None:
    """Wait until the page says that so many suspects are shown and decided."""
    deadline = time.monotonic() + 100
    while (said := driver.find_element("id", "count").text) != count:
        assert time.monotonic() < deadline, said
        time.sleep(0.02)


def choose(driver: Any, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(driver.find_element("id", name)).select_by_value(value)


def test_decisions_by_keyboard(driver: Any, server: ReviewServer, cleaned: Path) -> None:
    opened(driver, server.address)
    files = [(suspect.file, suspect.given, suspect.suggested) for suspect in server.reviewed.suspects]
    assert len(files) == 48
    press(driver, "a")  # no suspect is chosen yet: the key chooses the first
    assert driver.execute_script("return document.activeElement.dataset.file") == files[0][0]
    settled(driver, "48 of 48 shown, 0 decided")
    press(driver, "a", "r", "j", "a")
    settled(driver, "48 of 48 shown, 3 decided")
    expected = {files[0][0]: files[0][2], files[1][0]: files[1][1], files[3][0]: files[3][2]}
    assert read_decisions(cleaned / DECISIONS) == expected
    press(driver, "u")  # the suspect behind the last decided one is chosen: the last decision is taken back
    settled(driver, "48 of 48 shown, 2 decided")
    del expected[files[3][0]]
    assert read_decisions(cleaned / DECISIONS) == expected
    press(driver, "k", "k", "k", "u")  # the first one
    settled(driver, "48 of 48 shown, 1 decided")
    press(driver, "c")
    others = [name for name in CLASSES if name not in files[0]]
    choose(driver, "other", others[0])
    settled(driver, "48 of 48 shown, 2 decided")
    assert read_decisions(cleaned / DECISIONS) == {files[0][0]: others[0], files[1][0]: files[1][1]}
    driver.refresh()
    settled(driver, "48 of 48 shown, 2 decided")
    cards = driver.find_elements("css selector", ".card")[:3]
    states = [card.find_element("class name", "state").text for card in cards]
    assert states == [f"changed to {others[0]}", f"kept as {files[1][1]}", ""]
    assert driver.execute_script("return window.hit") is None
    assert driver.get_log("browser") == []


def test_decisions_by_mouse_and_all_undecided(driver: Any, server: ReviewServer) -> None:
    opened(driver, server.address)
    first, second = driver.find_elements("css selector", ".card")[:2]
    first.find_element("css selector", "button[data-key=a]").click()
    second.find_element("css selector", "button[data-key=r]").click()
    settled(driver, "48 of 48 shown, 2 decided")
    driver.find_element("id", "open").click()
    settled(driver, "46 of 48 shown, 2 decided")
    driver.find_element("id", "open").click()
    first.find_element("css selector", "button[data-key=u]").click()
    settled(driver, "48 of 48 shown, 1 decided")


def test_filters_and_order(driver: Any, server: ReviewServer) -> None:
    opened(driver, server.address)
    assert [card["probability"] for card in shown(driver)] == sorted(
        (card["probability"] for card in shown(driver)), reverse=True
    )
    choose(driver, "given", CLASSES[0])
    settled(driver, "12 of 48 shown, 0 decided")
    assert {card["given"] for card in shown(driver)} == {CLASSES[0]}
    choose(driver, "suggested", CLASSES[3])
    settled(driver, "0 of 48 shown, 0 decided")
    assert driver.find_element("id", "none").is_displayed()
    choose(driver, "given", "")
    settled(driver, "12 of 48 shown, 0 decided")
    assert {card["suggested"] for card in shown(driver)} == {CLASSES[3]}
    choose(driver, "suggested", "")
    choose(driver, "by", "suggested")
    assert [card["suggested"] for card in shown(driver)] == [name for name in sorted_by(driver) for _ in range(12)]
    choose(driver, "by", "file")
    files = [card["file"].rpartition("/")[2] for card in shown(driver)[:12]]
    assert files == sorted(files)
    driver.execute_script('const least=document.getElementById("least");least.value=90;')
    driver.execute_script('document.getElementById("least").dispatchEvent(new Event("input"))')
    chosen = shown(driver)
    assert 0 < len(chosen) < 48
    assert min(float(card["probability"]) for card in chosen) >= 0.9
    press(driver, "\ue00c")  # Escape: from the filter back to the pictures
    press(driver, "a", "a")
    settled(driver, f"{len(chosen)} of 48 shown, 2 decided")
    decided = set(read_decisions(server.reviewed.folder / DECISIONS))
    assert decided == {card["file"] for card in chosen[:2]}, "keys follow the order that is shown"


def sorted_by(driver: Any) -> list[str]:
    """The classes as the browser sorts them."""
    found: list[str] = driver.execute_script("return arguments[0].sort(new Intl.Collator().compare)", list(CLASSES))
    return found


def test_the_classes_are_in_a_table(driver: Any, server: ReviewServer) -> None:
    opened(driver, server.address)
    rows = driver.find_elements("css selector", "main table tbody tr")
    cells = [[cell.text for cell in row.find_elements("css selector", "td")] for row in rows]
    assert [row[:3] for row in cells] == [[name, "16", "12"] for name in CLASSES]


def test_many_suspects_stay_quick(driver: Any, tmp_path: Path) -> None:
    with served(made(tmp_path, MANY)) as server:
        opened(driver, server.address)
        script = """
const began=performance.now(),by=document.getElementById("by");
for(const value of["given","file","probability"]){by.value=value;by.dispatchEvent(new Event("change"));
document.body.getBoundingClientRect();}
return (performance.now()-began)/3;"""
        assert driver.execute_script(script) < 10_000, "milliseconds for a new order"
        press(driver, "j", *("a" if number % 2 else "r" for number in range(60)))
        settled(driver, "1200 of 1200 shown, 60 decided")


def test_pictures_are_there_and_nothing_comes_from_elsewhere(driver: Any, server: ReviewServer, cleaned: Path) -> None:
    for address in (server.address, (cleaned / PAGE).as_uri()):
        opened(driver, address)
        script = "return [...document.images].slice(0,20).map(each=>each.decode().then(()=>each.naturalWidth))"
        widths = driver.execute_async_script(
            f"const done=arguments[0];Promise.all((()=>{{{script}}})()).then(done,error=>done(String(error)))"
        )
        assert widths == [120] * 20
        fetched = driver.execute_script('return performance.getEntriesByType("resource").map(each=>each.name)')
        assert [name for name in fetched if not name.startswith("data:")] == []
        assert driver.get_log("browser") == []


def test_the_page_without_a_server_filters_and_decides_nothing(driver: Any, cleaned: Path) -> None:
    opened(driver, (cleaned / PAGE).as_uri())
    settled(driver, "48 of 48 shown")
    assert "To decide on suspects: fastnoise review" in driver.page_source
    assert not driver.find_elements("css selector", ".card button")
    choose(driver, "given", CLASSES[2])
    settled(driver, "12 of 48 shown")
    press(driver, "\ue00c", "j", "a")
    assert not driver.find_elements("css selector", ".card.accepted")
    assert driver.execute_script("return document.activeElement.dataset.file") == shown(driver)[1]["file"]


def test_a_review_that_has_ended_is_told(driver: Any, cleaned: Path) -> None:
    (cleaned / DECISIONS).unlink(missing_ok=True)
    with served(cleaned) as server:
        opened(driver, server.address)
        press(driver, "j", "a")
        settled(driver, "48 of 48 shown, 1 decided")
    press(driver, "a")
    deadline = time.monotonic() + 100
    while "the review has ended" not in (said := driver.find_element("id", "said").text):
        assert time.monotonic() < deadline, said
        time.sleep(0.02)
    assert len(driver.find_elements("css selector", ".card.failed")) == 1
    assert len(read_decisions(cleaned / DECISIONS)) == 1
    driver.get_log("browser")  # where Chromium notes that nobody answered


def test_another_site_cannot_decide_from_the_browser(driver: Any, server: ReviewServer, cleaned: Path) -> None:
    """A page of another origin has no token, and may not even ask."""
    opened(driver, (cleaned / PAGE).as_uri())
    request = json.dumps({"suspect": 0, "label": CLASSES[0]})
    script = f"""
const done=arguments[0];
fetch("{server.address}decide",{{method:"POST",mode:"no-cors",body:{request!r}}}).then(()=>done("sent"),
error=>done("refused"));"""
    assert driver.execute_async_script(script) == "refused"
    assert read_decisions(cleaned / DECISIONS) == {}
    with urllib.request.urlopen(server.address) as answer:
        assert "X-Token" in answer.read().decode()
    driver.get_log("browser")
