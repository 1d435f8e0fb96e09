const cards = document.getElementById("pairs"), order = document.getElementById("order");
// Order of the cards. Those without a change (a score failed) stay last.
order?.addEventListener("change", () => {
  const sign = Number(order.selectedOptions[0].dataset.sign || 0);
  const key = (card) => {
    if (!sign) return Number(card.dataset.order);
    const change = JSON.parse(card.dataset.changes)[order.value];
    return change === undefined ? Infinity : sign * change;
  };
  cards.append(...[...cards.children].sort((a, b) => {
    const one = key(a), other = key(b);
    return one === other ? a.dataset.order - b.dataset.order : one - other;
  }));
});
// One card, large: its pictures lie on each other, and a flip shows the next of them in place.
const viewer = document.getElementById("viewer");
if (viewer && cards) {
  const part = (name) => viewer.querySelector(`.${name}`);
  let card = null, side = 0;
  const show = () => {
    const sides = [...card.querySelectorAll(".side")];
    side = Math.min(side, sides.length - 1);
    part("large").replaceChildren(...sides.map((one, i) => {
      const image = one.querySelector("img").cloneNode();
      image.classList.toggle("on", i === side);
      return image;
    }));
    part("which").textContent = sides[side].querySelector("small").textContent;
    part("place").textContent = `${[...cards.children].indexOf(card) + 1} of ${cards.children.length}`;
    part("words").replaceChildren(...[...card.querySelectorAll("figcaption, dl")].map((node) => node.cloneNode(true)));
    part("flip").hidden = sides.length < 2;
  };
  const move = (steps) => {
    const all = [...cards.children];
    card = all[(all.indexOf(card) + steps + all.length) % all.length];
    show();
  };
  const flip = () => {
    side = (side + 1) % card.querySelectorAll(".side").length;
    show();
  };
  cards.addEventListener("click", (event) => {
    const sides = event.target.closest(".sides");
    if (!sides) return;
    card = sides.closest(".pair");
    const clicked = event.target.closest(".side");
    side = clicked ? [...sides.children].indexOf(clicked) : sides.children.length - 1;
    show();
    viewer.showModal();
  });
  viewer.addEventListener("click", (event) => {
    const step = event.target.dataset.step;
    if (step) move(Number(step));
    else if (event.target.closest(".flip, .large")) flip();
    else if (event.target === viewer || event.target.closest(".close")) viewer.close();
  });
  viewer.addEventListener("keydown", (event) => {
    const act = {ArrowLeft: () => move(-1), ArrowRight: () => move(1), ArrowUp: flip, ArrowDown: flip, f: flip}[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  viewer.addEventListener("close", () => card.querySelector(".sides").focus({focusVisible: false}));
}
