// Copies text and says so on the button that was pressed.
const SHOWN_MS = 1500;

export async function copyText(text, button) {
  const label = button.textContent;
  const isCopied = await writeText(text);
  button.textContent = isCopied ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = label), SHOWN_MS);
}

async function writeText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return writeSelection(text); // no clipboard API: plain HTTP from another machine
  }
}

function writeSelection(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  return isCopied;
}
