"""Language codes: ISO 639-3 and script everywhere; this module alone translates them for others."""

import difflib
import functools
from dataclasses import dataclass

import pycountry

from jaxlingua.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Language:
    """One language in one script: our code, its name in English, and what Unicode CLDR calls it."""

    code: str
    name: str
    cldr: str

    @property
    def script(self) -> str:
        """ISO 15924 code of the script."""
        return self.code.split("_")[1]


_TABLE = """
afr_Latn Afrikaans af
amh_Ethi Amharic am
arb_Arab Arabic ar
asm_Beng Assamese as
azj_Latn Azerbaijani az
bel_Cyrl Belarusian be
bul_Cyrl Bulgarian bg
ben_Beng Bengali bn
bos_Latn Bosnian bs
cat_Latn Catalan ca
ceb_Latn Cebuano ceb
ckb_Arab Central Kurdish ckb
ces_Latn Czech cs
cym_Latn Welsh cy
dan_Latn Danish da
deu_Latn German de
ell_Grek Greek el
eng_Latn English en
epo_Latn Esperanto eo
spa_Latn Spanish es
est_Latn Estonian et
eus_Latn Basque eu
pes_Arab Persian fa
fin_Latn Finnish fi
fil_Latn Filipino fil
tgl_Latn Tagalog fil
fra_Latn French fr
gle_Latn Irish ga
glg_Latn Galician gl
guj_Gujr Gujarati gu
hau_Latn Hausa ha
heb_Hebr Hebrew he
hin_Deva Hindi hi
hrv_Latn Croatian hr
hun_Latn Hungarian hu
hye_Armn Armenian hy
ind_Latn Indonesian id
ibo_Latn Igbo ig
isl_Latn Icelandic is
ita_Latn Italian it
jpn_Jpan Japanese ja
jav_Latn Javanese jv
kat_Geor Georgian ka
kaz_Cyrl Kazakh kk
khm_Khmr Khmer km
kan_Knda Kannada kn
kor_Hang Korean ko
kir_Cyrl Kyrgyz ky
ltz_Latn Luxembourgish lb
lao_Laoo Lao lo
lit_Latn Lithuanian lt
lvs_Latn Latvian lv
mkd_Cyrl Macedonian mk
mal_Mlym Malayalam ml
khk_Cyrl Mongolian mn
mar_Deva Marathi mr
zsm_Latn Malay ms
mlt_Latn Maltese mt
mya_Mymr Burmese my
nob_Latn Norwegian Bokmål nb
npi_Deva Nepali ne
nld_Latn Dutch nl
nno_Latn Norwegian Nynorsk nn
ory_Orya Odia or
pan_Guru Punjabi pa
pol_Latn Polish pl
pbt_Arab Pashto ps
por_Latn Portuguese pt
quy_Latn Quechua qu
ron_Latn Romanian ro
rus_Cyrl Russian ru
snd_Arab Sindhi sd
sin_Sinh Sinhala si
slk_Latn Slovak sk
slv_Latn Slovenian sl
som_Latn Somali so
als_Latn Albanian sq
srp_Cyrl Serbian sr
swe_Latn Swedish sv
swh_Latn Swahili sw
tam_Taml Tamil ta
tel_Telu Telugu te
tgk_Cyrl Tajik tg
tha_Thai Thai th
tir_Ethi Tigrinya ti
tuk_Latn Turkmen tk
tur_Latn Turkish tr
tat_Cyrl Tatar tt
uig_Arab Uyghur ug
ukr_Cyrl Ukrainian uk
urd_Arab Urdu ur
uzn_Latn Uzbek uz
vie_Latn Vietnamese vi
wol_Latn Wolof wo
xho_Latn Xhosa xh
yor_Latn Yoruba yo
zho_Hans Chinese zh_Hans
zho_Hant Traditional Chinese zh_Hant
yue_Hant Cantonese yue
zul_Latn Zulu zu
ace_Latn Acehnese -
ban_Latn Balinese -
bbc_Latn Toba Batak -
bjn_Latn Banjarese -
bug_Latn Buginese -
mad_Latn Madurese -
min_Latn Minangkabau -
nij_Latn Ngaju -
sun_Latn Sundanese su
abs_Latn Ambonese Malay -
bew_Latn Betawi -
bhp_Latn Bima -
mui_Latn Musi -
rej_Latn Rejang -
bem_Latn Bemba -
fon_Latn Fon -
kin_Latn Kinyarwanda rw
twi_Latn Twi ak
lin_Latn Lingala ln
nya_Latn Chichewa -
lug_Latn Ganda lg
orm_Latn Oromo om
sna_Latn Shona sn
hat_Latn Haitian Creole -
grn_Latn Guarani -
ayr_Latn Aymara -
mri_Latn Māori mi
smo_Latn Samoan -
ast_Latn Asturian ast
oci_Latn Occitan -
bre_Latn Breton br
gla_Latn Scottish Gaelic gd
fao_Latn Faroese fo
san_Deva Sanskrit sa
bho_Deva Bhojpuri bho
mai_Deva Maithili mai
jav_Java Javanese in Javanese script -
srp_Latn Serbian in Latin script sr_Latn
uzn_Cyrl Uzbek in Cyrillic script uz_Cyrl
lat_Latn Latin -
"""


def _read_table() -> dict[str, Language]:
    languages = {}
    for line in _TABLE.strip().splitlines():
        code, *name, cldr = line.split()
        languages[code] = Language(code, " ".join(name), "" if cldr == "-" else cldr)
    return languages


LANGUAGES: dict[str, Language] = _read_table()

# ISO 15924 codes of scripts whose letters run from right to left, as Unicode has it; Aran is a style of Arab.
_RIGHT_TO_LEFT = (
    "Adlm Arab Aran Armi Avst Chrs Cprt Elym Gara Hatr Hebr Hung Khar Lydi Mand Mani Mend Merc Mero Narb "
    "Nbat Nkoo Orkh Ougr Palm Phli Phlp Phnx Prti Rohg Samr Sarb Sidt Sogd Sogo Syrc Thaa Yezi"
)


@functools.cache
def find_language(code: str) -> Language | None:
    """The language of a code: of the table, or else any of ISO 639-3 that the table has in no script.

    Names of those are ISO's, and Unicode CLDR is not asked about them.
    """
    if code in LANGUAGES:
        return LANGUAGES[code]
    language, _, script = code.partition("_")
    if len(language) != 3 or any(known.startswith(f"{language}_") for known in LANGUAGES):
        return None
    found = pycountry.languages.get(alpha_3=language)
    if found is None or pycountry.scripts.get(alpha_4=script) is None or not code.endswith(script.title()):
        return None
    return Language(code, found.name, "")


def check_language(code: str, where: str) -> None:
    """Refuse what is no language in a script, naming the code that was probably meant.

    Raises: ConfigError beginning with `where`.
    """
    if find_language(code):
        return
    same_language = [known for known in LANGUAGES if known.split("_")[0] == code.split("_")[0]]
    by_name = [known for known, language in LANGUAGES.items() if language.name.casefold() == code.casefold()]
    by_cldr = [known for known, language in LANGUAGES.items() if language.cldr == code.replace("-", "_")]
    near = same_language or by_name or by_cldr or difflib.get_close_matches(code, LANGUAGES, n=1, cutoff=0.8)
    hint = f"write '{near[0]}'" if near else "write ISO 639-3 and script, such as 'eng_Latn'"
    raise ConfigError(f"{where}: unknown language '{code}'; {hint}")


def display_name(code: str) -> str:
    """Name of a language in English, as it stands in translation instructions.

    Raises: ConfigError for a code that is none.
    Example:
        >>> display_name("jav_Latn"), display_name("tet_Latn")
        ('Javanese', 'Tetum')
    """
    return _known(code).name


def cldr_locale(code: str) -> str:
    """Identifier of a language in Unicode CLDR, such as "de"; empty where CLDR does not have it."""
    return _known(code).cldr


def hub_language(code: str) -> str:
    """A language as the hub lists it: two letters of ISO 639-1 where there are, else three of ISO 639-3.

    Where ISO 639-1 has only the larger language that one belongs to, CLDR tells which.

    Example:
        >>> [hub_language(code) for code in ("zho_Hans", "arb_Arab", "jav_Latn", "ban_Latn")]
        ['zh', 'ar', 'jv', 'ban']
    """
    iso = code.partition("_")[0]
    locale = cldr_locale(code).partition("_")[0]
    known = pycountry.languages.get(alpha_3=iso)
    return getattr(known, "alpha_2", "") or (locale if len(locale) == 2 else iso)


def is_of_several_scripts(code: str) -> bool:
    """Whether the table has the language of a code in another script too, so that a name is not enough.

    Example:
        >>> is_of_several_scripts("jav_Java"), is_of_several_scripts("ban_Latn")
        (True, False)
    """
    return sum(known.startswith(f"{code.partition('_')[0]}_") for known in LANGUAGES) > 1


def script_of(code: str) -> str:
    """ISO 15924 code of the script."""
    return _known(code).script


def is_right_to_left(code: str) -> bool:
    """Whether the script of a language is written from right to left.

    Example:
        >>> is_right_to_left("pbt_Arab"), is_right_to_left("hin_Deva")
        (True, False)
    """
    return script_of(code) in _RIGHT_TO_LEFT.split()


def html_language(code: str) -> str:
    """A language as the attribute `lang` of HTML wants it, by which browsers choose fonts and voices.

    Example:
        >>> [html_language(code) for code in ("zho_Hans", "arb_Arab", "ban_Latn")]
        ['zh-Hans', 'ar', 'ban']
    """
    return cldr_locale(code).replace("_", "-") or hub_language(code)


def _known(code: str) -> Language:
    language = find_language(code)
    if language is None:  # check_language has refused it before, where it came from the configuration
        check_language(code, "language")
    return language


def parse_direction(direction: str) -> tuple[str, str]:
    """Source and target language of "eng_Latn-zho_Hans".

    Raises: ConfigError unless it is two different codes joined by a hyphen.
    Example:
        >>> parse_direction("eng_Latn-zho_Hans")
        ('eng_Latn', 'zho_Hans')
    """
    codes = direction.split("-")
    if len(codes) != 2 or codes[0] == codes[1] or not all(codes):
        raise ConfigError(f"direction '{direction}' given; write SOURCE-TARGET, such as eng_Latn-zho_Hans")
    return codes[0], codes[1]
