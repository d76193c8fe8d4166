"""The words the demo company is made of: invented people and companies, real-sounding wares."""

from __future__ import annotations

from providers import product

FIRST_NAMES = (
    "Ada", "Aisha", "Alvaro", "Amara", "Anika", "Anton", "Beatriz", "Bilal", "Camille", "Chen", "Daniela", "David",
    "Elena", "Emeka", "Eva", "Farid", "Fiona", "Gabriel", "Grace", "Hanna", "Hiro", "Ines", "Ivan", "Jasmin", "Jonas",
    "Julia", "Karim", "Katya", "Lars", "Leila", "Lucia", "Malik", "Marta", "Mei", "Miguel", "Mina", "Nadia", "Noah",
    "Olga", "Omar", "Petra", "Priya", "Rafael", "Rosa", "Samir", "Sofia", "Tomas", "Uma", "Viktor", "Yara", "Yusuf",
    "Zofia",
)  # fmt: skip
LAST_NAMES = (
    "Abbott", "Adeyemi", "Almeida", "Andersen", "Bakker", "Bauer", "Becker", "Bianchi", "Castro", "Chowdhury", "Costa",
    "Demir", "Dubois", "Eriksen", "Farouk", "Fischer", "Garcia", "Haddad", "Hansen", "Horvat", "Ibrahim", "Ivanova",
    "Jansen", "Kaplan", "Keller", "Kowalska", "Larsen", "Lindqvist", "Lopez", "Marino", "Mbeki", "Meyer", "Moreau",
    "Nakamura", "Novak", "Okafor", "Olsen", "Patel", "Petrov", "Quinn", "Rahman", "Ricci", "Romero", "Sato", "Schmidt",
    "Silva", "Singh", "Tanaka", "Virtanen", "Weber", "Yilmaz", "Zhou",
)  # fmt: skip

PLACES = (
    "Alder", "Birch", "Bridge", "Cedar", "Clover", "Coast", "Elm", "Garden", "Harbor", "Hazel", "Hill", "Lake",
    "Lindenhof", "Maple", "Market", "Meadow", "Mill", "Oak", "Orchard", "Park", "Pine", "Quay", "River", "Rowan",
    "Spring", "Station", "Stone", "Sunny", "Valley", "Willow",
)  # fmt: skip
#: Industry, and how such a business calls itself.
BUSINESSES = (
    ("General practice", "Family Practice"),
    ("Dental", "Dental Care"),
    ("Physiotherapy", "Physio"),
    ("Veterinary", "Animal Clinic"),
    ("Pharmacy", "Pharmacy"),
    ("Optician", "Eye Care"),
    ("Dermatology", "Skin Clinic"),
    ("Wellness retail", "Wellness Shop"),
)
COUNTRIES = ("DE", "FR", "ES", "IT", "NL", "PL", "SE", "GB", "IE", "US")

#: Everything the practice-management product can do; adoption is a share of this list.
FEATURES = product.FEATURES

#: Plan, monthly price of a seat in cents, and the seats it is usually sold with.
PLANS = (("basic", 1200, (1, 4)), ("premium", 2500, (4, 15)), ("enterprise", 3900, (15, 120)))

#: Stock-keeping unit, name, price in cents.
PRODUCTS = (
    ("MED-101", "Vitamin D3 drops", 1190),
    ("MED-102", "Magnesium capsules", 1490),
    ("MED-103", "Zinc lozenges", 890),
    ("MED-201", "Hand cream, urea 5%", 790),
    ("MED-202", "Calming skin lotion", 1590),
    ("MED-203", "Sun lotion SPF 50", 1890),
    ("MED-301", "Nitrile gloves, box of 100", 1250),
    ("MED-302", "Disinfectant wipes", 690),
    ("MED-303", "Surface spray, 1 l", 990),
    ("MED-401", "Digital thermometer", 1690),
    ("MED-402", "Blood pressure monitor", 4990),
    ("MED-403", "Pulse oximeter", 2990),
    ("MED-501", "Knee bandage", 2490),
    ("MED-502", "Kinesiology tape", 950),
    ("MED-601", "Saline nasal spray", 590),
    ("MED-602", "Herbal cough syrup", 990),
)
CARRIERS = (("DHL", "JD"), ("UPS", "1Z"), ("DPD", "05"))

#: What customers write about: topic, and the subject line of a ticket about it.
TOPICS = (
    ("billing", "Question about our last invoice"),
    ("seats", "Seat limit reached"),
    ("invites", "Invitation mail did not arrive"),
    ("exports", "Export stops half-way"),
    ("calendar", "Appointments shown twice"),
    ("shipping", "Parcel has not moved for days"),
    ("refunds", "Refund not received yet"),
    ("product questions", "Which lotion for sensitive skin"),
    ("integrations", "Connection to the lab system broke"),
    ("sign-in", "Cannot sign in after password change"),
)
CHANNELS = ("chat", "mail", "voice")
SECURITY_EVENTS = (
    ("new_device", "low", "Sign-in from a device not seen before"),
    ("failed_sign_ins", "medium", "Ten failed sign-ins within five minutes"),
    ("permission_change", "medium", "A member became administrator"),
    ("api_key_created", "low", "A new API key was created"),
    ("impossible_travel", "high", "Sign-ins from two countries within an hour"),
)
INCIDENTS = (
    ("calendar", "Calendar slow for some customers", "minor"),
    ("invoicing", "Invoices sent with delay", "minor"),
    ("messages", "Reminder messages not delivered", "major"),
    ("sign-in", "Sign-in unavailable", "critical"),
    ("exports", "Exports time out", "minor"),
    ("reports", "Reports show numbers of yesterday", "minor"),
)
TEAMS = (
    ("support", ("billing", "seats", "sign-in", "exports")),
    ("orders", ("shipping", "refunds", "product questions")),
    ("pharmacy", ("product safety", "adverse reactions")),
    ("success", ("renewals", "onboarding", "integrations")),
)
