// The body of a function: gives `seen`, how many texts are shown, and `pale`, those that have too little contrast with
// what is behind them (WCAG 2.2, 1.4.3; luminance and ratio as defined there).

const colour = (text) => {
  const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
  return { parts: [red, green, blue], alpha };
};

const luminance = ({ parts }) => {
  const linear = parts
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};

const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const ground = colour(getComputedStyle(at).backgroundColor);
    if (ground.alpha === 1) {
      return ground;
    }
  }
  throw new Error("nothing is behind it");
};

const ownText = (element) => {
  const texts = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
  return element.matches("input") ? element.value : texts.map((node) => node.data).join("").trim();
};

const pale = [];
let seen = 0;
for (const element of document.querySelectorAll("body *")) {
  const text = ownText(element);
  if (!text || !element.checkVisibility() || element.closest("noscript, .unseen, .skip")) {
    continue;
  }
  seen += 1;
  const { color, fontSize, fontWeight } = getComputedStyle(element);
  const [one, other] = [luminance(colour(color)), luminance(behind(element))];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const pixels = parseFloat(fontSize);
  const isLarge = pixels >= 24 || (pixels >= 18.66 && fontWeight >= 700);
  if (ratio < (isLarge ? 3 : 4.5)) {
    pale.push(`${text}: ${ratio.toFixed(2)}`);
  }
}
return { seen, pale };
