// Names of LaTeX and the characters they stand for.

const pairs = (text) => Object.fromEntries(text.trim().split(/\s+/).map((pair) => pair.split("=")));

/** Letters and things that stand like letters. */
export const SYMBOLS = pairs(`
  alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ lambda=λ mu=μ nu=ν
  xi=ξ omicron=ο pi=π varpi=ϖ rho=ρ varrho=ϱ sigma=σ varsigma=ς tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω
  Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Upsilon=Υ Phi=Φ Psi=Ψ Omega=Ω
  infty=∞ partial=∂ nabla=∇ ell=ℓ hbar=ℏ Re=ℜ Im=ℑ aleph=ℵ emptyset=∅ varnothing=∅ angle=∠ triangle=△ degree=° prime=′
  imath=ı jmath=ȷ wp=℘ top=⊤ bot=⊥ dots=… ldots=… cdots=⋯ vdots=⋮ ddots=⋱ dotsc=… dotsb=⋯ square=□ checkmark=✓
  heartsuit=♡ clubsuit=♣ diamondsuit=♢ spadesuit=♠ pounds=£ euro=€ S=§
`);

/** Signs between things, and large operators. */
export const OPERATORS = pairs(`
  cdot=⋅ times=× div=÷ pm=± mp=∓ ast=∗ star=⋆ circ=∘ bullet=∙ oplus=⊕ ominus=⊖ otimes=⊗ odot=⊙ wedge=∧ vee=∨ land=∧ lor=∨
  cap=∩ cup=∪ setminus=∖ neg=¬ lnot=¬ forall=∀ exists=∃ nexists=∄ in=∈ notin=∉ ni=∋ subset=⊂ supset=⊃ subseteq=⊆
  supseteq=⊇ subsetneq=⊊ le=≤ leq=≤ leqslant=⩽ ge=≥ geq=≥ geqslant=⩾ ne=≠ neq=≠ ll=≪ gg=≫ approx=≈ equiv=≡ sim=∼
  simeq=≃ cong=≅ propto=∝ mid=∣ nmid=∤ parallel=∥ perp=⊥ models=⊨ vdash=⊢ asymp=≍ doteq=≐ triangleq=≜ coloneqq=≔
  to=→ rightarrow=→ leftarrow=← gets=← leftrightarrow=↔ Rightarrow=⇒ Leftarrow=⇐ Leftrightarrow=⇔ implies=⟹ impliedby=⟸
  iff=⟺ mapsto=↦ longrightarrow=⟶ longleftarrow=⟵ longmapsto=⟼ Longrightarrow=⟹ uparrow=↑ downarrow=↓ updownarrow=↕
  hookrightarrow=↪ rightleftharpoons=⇌ nearrow=↗ searrow=↘ leadsto=⇝ therefore=∴ because=∵
  sum=∑ prod=∏ coprod=∐ int=∫ iint=∬ iiint=∭ oint=∮ bigcup=⋃ bigcap=⋂ bigoplus=⨁ bigotimes=⨂ bigvee=⋁ bigwedge=⋀
  colon=: lbrack=[ rbrack=] backslash=\\ dagger=† lt=< gt=> And=& bmod=mod mod=mod
`);

/** With what is summed over written above and below, on a line of their own. */
export const LARGE = new Set(
  "sum prod coprod bigcup bigcap bigoplus bigotimes bigvee bigwedge".split(" ").map((name) => `\\${name}`),
);

export const FUNCTIONS = new Set(
  (
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth exp log ln lg det dim ker deg hom gcd lim limsup " +
    "liminf max min sup inf arg argmax argmin Pr"
  ).split(" "),
);

/** Commands that put their argument in other letters. */
export const ALPHABETS = {
  mathrm: "upright", mathbf: "bold", boldsymbol: "bold", bm: "bold", mathbb: "double", mathcal: "script",
  mathscr: "script", mathfrak: "fraktur", mathsf: "upright", mathtt: "upright", mathit: "upright", text: "text",
  textbf: "text", textit: "text", textrm: "text", texttt: "text", mbox: "text", mathop: "upright",
}; // prettier-ignore

/** Marks over or under. */
export const ACCENTS = {
  hat: ["mover", "^"], widehat: ["mover", "^"], bar: ["mover", "¯"], overline: ["mover", "¯"], vec: ["mover", "→"],
  overrightarrow: ["mover", "→"], dot: ["mover", "˙"], ddot: ["mover", "¨"], tilde: ["mover", "~"],
  widetilde: ["mover", "~"], check: ["mover", "ˇ"], breve: ["mover", "˘"], underline: ["munder", "_"],
  overbrace: ["mover", "⏞"], underbrace: ["munder", "⏟"],
}; // prettier-ignore

export const SPACES = {
  quad: "1em", qquad: "2em", ",": "0.167em", ":": "0.222em", ">": "0.222em", ";": "0.278em", enspace: "0.5em",
  thinspace: "0.167em",
}; // prettier-ignore
